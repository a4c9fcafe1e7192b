#!/usr/bin/env bash
# The faults of a run. Source it after stage.sh. What they need is in variables: CHAOS the run's directory,
# PREFIX nginx's, CONTROL the proxy's control port, NODES, TOPICS, PARTITIONS.
#
# Each fault leaves all as it was: brokers running, wires open, nginx serving. What happens is noted in
# $CHAOS/events as `MILLISECONDS WORDS...`, with the wall clock; `back` is the end of an outage.

# play STREAM: plays its schedule, from the moment in $CHAOS/begun.
play() {
  local at name seconds arguments begun
  read -r begun <"$CHAOS/begun"
  while read -r at name seconds arguments; do
    wait_until $(( begun + at ))
    if [[ $name != kill ]]; then note fault "$name" "$seconds" "$arguments"; fi
    # shellcheck disable=SC2086 # words
    "fault_${name//-/_}" "$seconds" $arguments
  done <"$CHAOS/schedule.$1"
}

now_ms() {
  local us=${EPOCHREALTIME/[.,]/}
  NOW=$(( us / 1000 ))
}

wait_until() {
  now_ms
  if (( $1 > NOW )); then sleep "$(printf '%d.%03d' $(( ($1 - NOW) / 1000 )) $(( ($1 - NOW) % 1000 )))"; fi
}

# note WORD...: by one write, so that players do not mix.
note() {
  now_ms
  echo "$NOW $*" >>"$CHAOS/events"
}

# --- Brokers ---

fault_broker_kill() {
  dev/kafka.sh kill "chaos-$2"
  sleep "$1"
  dev/kafka.sh start "chaos-$2"
}

fault_broker_freeze() {
  dev/kafka.sh pause "chaos-$2"
  sleep "$1"
  dev/kafka.sh resume "chaos-$2"
}

fault_broker_restart() {
  dev/kafka.sh restart "chaos-$2"
}

fault_rolling() {
  local node
  for (( node = 1; node <= NODES; node++ )); do dev/kafka.sh restart "chaos-$node"; done
}

# Every five seconds each partition has another leader.
fault_leaders() {
  local round topic
  for (( round = 0; round * 5 < $1; round++ )); do
    for topic in $TOPICS; do
      dev/kafka.sh lead chaos-1 "$topic" "$PARTITIONS" "$(( ($2 + round) % NODES + 1 ))"
    done
    sleep 5
  done
}

# Back when two of three answer: then a record can have its two replicas.
fault_outage() {
  local node
  for (( node = 1; node <= NODES; node++ )); do dev/kafka.sh kill "chaos-$node"; done
  sleep "$1"
  rm -f "$CHAOS"/up.*
  start_brokers
  note back outage "$(sort -n "$CHAOS"/up.* | sed -n 2p)"
  sleep "$RECOVERY"
}

# start_brokers: those that do not run. When each answered is in $CHAOS/up.NODE.
start_brokers() {
  local node starting=() pid
  for (( node = 1; node <= NODES; node++ )); do
    {
      dev/kafka.sh start "chaos-$node"
      now_ms
      echo "$NOW" >"$CHAOS/up.$node"
    } &
    starting+=($!)
  done
  for pid in "${starting[@]}"; do wait "$pid" || die 'a broker did not start'; done
}

# --- Wires ---

# proxy ORDER: see src/proxy/fault.rs. Prints an answer that is not "ok".
proxy() {
  local answer wire
  exec {wire}<>"/dev/tcp/127.0.0.1/$CONTROL"
  echo "$1" >&"$wire"
  read -r -t 10 answer <&"$wire" || die 'the proxy does not answer'
  exec {wire}>&-
  if [[ $1 == status ]]; then
    echo "$answer"
  elif [[ $answer != ok ]]; then
    die "the proxy: $answer"
  fi
}

# wire ORDER SECONDS LINE [ARGUMENT...]
wire() {
  proxy "$3 $1${4:+ ${*:4}}"
  sleep "$2"
  proxy "$3 pass"
  if [[ $3 == all && ($1 == refuse || $1 == freeze) ]]; then
    now_ms
    note back "$1" "$NOW"
    sleep "$RECOVERY"
  fi
}

fault_delay() { wire delay "$@"; }
fault_drip() { wire drip "$@"; }
fault_freeze() { wire freeze "$@"; }
fault_refuse() { wire refuse "$@"; }
fault_hang_up() { wire hang-up "$@"; }
fault_lifetime() { wire lifetime "$@"; }
fault_cut_request() { wire cut-request "$@"; }
fault_cut_answer() { wire cut-answer "$@"; }
fault_lose() { wire lose "$@"; }
fault_swallow() { wire swallow "$@"; }

# --- The disk of the backup ---

# No broker takes anything, what is too old goes to the backup, and its disk has 16 KiB left; space comes
# back before the brokers do.
fault_disk_full() {
  local filler=$BACKUP/filler free
  proxy 'all refuse'
  # Most of it at once, and the rest until nothing goes: what is free changes meanwhile.
  free=$(stat --file-system --format='%a * %S' "$BACKUP")
  fallocate -l "$(( free - 8 * 1024 * 1024 ))" "$filler"
  dd if=/dev/zero bs=16k oflag=append conv=notrunc of="$filler" 2>/dev/null || true
  truncate -s -16K "$filler"
  sleep "$(( $1 * 3 / 4 ))"
  rm -f "$filler"
  sleep "$(( $1 - $1 * 3 / 4 ))"
  proxy 'all pass'
  now_ms
  note back disk-full "$NOW"
  sleep "$RECOVERY"
}

# No broker takes anything, and when the first messages are old enough for the backup its file system is frozen:
# whoever writes to it waits. It thaws with the process that froze it, however that ends, and before the brokers
# are back.
fault_disk_hang() {
  proxy 'all refuse'
  sleep "$(( $1 / 2 ))"
  (
    trap 'fsfreeze --unfreeze "$BACKUP"' EXIT
    trap 'exit 1' TERM INT
    fsfreeze --freeze "$BACKUP"
    sleep "$(( $1 / 3 ))" &
    wait $!
  )
  sleep "$(( $1 - $1 / 2 - $1 / 3 ))"
  proxy 'all pass'
  now_ms
  note back disk-hang "$NOW"
  sleep "$RECOVERY"
}

# --- nginx ---

master() {
  cat "$PREFIX/nginx.pid"
}

# workers: pids, those included that are on their way out. All generations are of one process group, that of
# the first master.
workers() {
  local group pid title
  group=$(sed -n 's/^PID=//p' "$PREFIX/env")
  cat /proc/[0-9]*/stat 2>/dev/null | sed -n "s/^\([0-9]*\) (nginx) [A-Z] [0-9]* $group .*/\1/p" |
    while read -r pid; do
      title=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true)
      if [[ $title == 'nginx: worker process'* ]]; then echo "$pid"; fi
    done
}

# ended PID SECONDS: waits for it.
ended() {
  local patience=$(( $2 * 50 ))
  while alive "$1"; do
    if (( patience-- == 0 )); then return 1; fi
    sleep 0.02
  done
}

fault_kill() {
  local pids pid
  mapfile -t pids < <(workers)
  if (( ${#pids[@]} == 0 )); then return; fi
  pid=${pids[$2 % ${#pids[@]}]}
  now_ms
  if kill -KILL "$pid" 2>/dev/null; then echo "$NOW $pid" >>"$CHAOS/kills"; fi
}

fault_reload() {
  kill -HUP "$(master)"
  sleep "$1"
}

fault_quit() { stop_nginx QUIT; start_nginx; }
fault_term() { stop_nginx TERM; start_nginx; }

start_nginx() {
  dev/nginx.sh start chaos
}

# stop_nginx SIGNAL: fails when it is not gone after 20 seconds.
stop_nginx() {
  local pid
  pid=$(master)
  kill "-$1" "$pid"
  if ended "$pid" 20; then return; fi
  note stuck "$1" "$pid"
  # shellcheck disable=SC2046 # words
  kill -KILL "$pid" $(workers)
  ended "$pid" 5
}

fault_crash() {
  local pids pid group
  group=$(sed -n 's/^PID=//p' "$PREFIX/env")
  mapfile -t pids < <(workers)
  now_ms
  # The group at once: a master would start new workers while its old ones die.
  kill -KILL -- "-$group" 2>/dev/null || true
  for pid in "${pids[@]}"; do
    echo "$NOW $pid" >>"$CHAOS/kills"
    kill -KILL "$pid" 2>/dev/null || true
    # Not before a frozen disk thaws.
    ended "$pid" 20
  done
  start_nginx
}

# The master is killed; its workers serve on, until they are asked to go.
fault_orphans() {
  local pids pid
  kill -KILL "$(master)"
  sleep "$1"
  mapfile -t pids < <(workers)
  for pid in "${pids[@]}"; do kill -QUIT "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do
    if ! ended "$pid" 20; then
      note stuck QUIT "$pid"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done
  start_nginx
}

# second_master: starts a second nginx beside the running one; sets OLD and NEW.
second_master() {
  local patience=500
  OLD=$(master)
  kill -USR2 "$OLD"
  until [[ -s $PREFIX/nginx.pid.oldbin && -s $PREFIX/nginx.pid && $(master) != "$OLD" ]]; do
    if (( patience-- == 0 )); then die 'the second nginx did not start'; fi
    sleep 0.02
  done
  NEW=$(master)
  sleep 0.5
}

fault_upgrade() {
  second_master
  kill -WINCH "$OLD"
  sleep "$1"
  kill -QUIT "$OLD"
  gone "$OLD"
}

fault_rollback() {
  second_master
  kill -WINCH "$OLD"
  sleep "$1"
  kill -HUP "$OLD"
  sleep 0.5
  kill -QUIT "$NEW"
  gone "$NEW"
}

gone() {
  if ended "$1" 20; then return; fi
  note stuck QUIT "$1"
  kill -KILL "$1"
}
