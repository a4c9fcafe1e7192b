-- For wrk: the result in one line: requests a second, the 99th percentile of the latency in
-- microseconds, and how many requests went wrong.

-- luacheck: globals done
function done(summary, latency)
  local errors = summary.errors
  local wrong = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(("%.1f %.0f %d\n"):format(summary.requests / summary.duration * 1e6,
                                     latency:percentile(99), wrong))
end
