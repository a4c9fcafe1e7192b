#!/usr/bin/env bash
# What every measurement says of the machine it ran on. Source it after stage.sh.

# machine: the processor and the kernel.
machine() {
  local model
  model=$(sed -n '/^model name[[:space:]]*: /{s///p;q}' /proc/cpuinfo)
  printf '%s, %s cores, Linux %s' "${model:-$(uname -m)}" "$(nproc)" "$(uname -r)"
}

# CPU time is counted in ticks, hundredths of a second.

# busy_ticks: all of it since boot, whoever used it.
busy_ticks() {
  awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9; exit }' /proc/stat
}

# ticks_of PID...: what these processes used.
ticks_of() {
  local pid
  for pid in "$@"; do cat "/proc/$pid/stat" 2>/dev/null || true; done |
    sed 's/^.*) //' | awk '{ ticks += $12 + $13 } END { print ticks + 0 }'
}

# own_ticks PID...: what these, this script and all that it waited for used.
own_ticks() {
  local ticks
  ticks=$(sed 's/^.*) //' "/proc/$$/stat" | awk '{ print $12 + $13 + $14 + $15 }')
  echo $(( ticks + $(ticks_of "$@") ))
}

# await_quiet: returns when others use less than a tenth of a core, after 15 seconds anyhow.
await_quiet() {
  local from to patience=15
  while (( patience-- > 0 )); do
    from=$(busy_ticks)
    sleep 1
    to=$(busy_ticks)
    if (( to - from < 10 )); then return; fi
  done
}
