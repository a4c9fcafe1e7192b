#!/usr/bin/env bash
# Takes the broker away from a loaded nginx for OUTAGE seconds (60), once by stopping and once by
# freezing it, and shows requests, latency, memory and where the messages are every five seconds.
# Fails unless all that log() took is in Kafka or in the backup. LKFK_CPATH, when set, is the
# directory of the lkfk.so to measure; else it is built.
# shellcheck disable=SC2154 # ledger() sets L_NAME, and awk the judgement
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/machine.sh
source dev/bench/worker.sh

OUTAGE=${OUTAGE:-60}
WINDOW=5
WINDOWS_BEFORE=2
WINDOWS_AFTER=4
PARTITIONS=4
MEMORY=16    # MB above the queue
WRK=(-t1 -c32 "-d${WINDOW}s")

# ledger: what the worker says, as variables with the prefix L_.
ledger() {
  local name value
  while IFS='=' read -r name value; do printf -v "L_$name" %s "$value"; done < <(get /ledger)
}

# status KEY [LESS]: megabytes, from the worker's /proc/PID/status.
status() {
  awk -v key="$1:" -v less="${2:-}:" '
    $1 == key { kb += $2 }
    $1 == less { kb -= $2 }
    END { print kb / 1024 }' "/proc/$WORKER/status"
}

# window PHASE: one line, after five seconds of load.
window() {
  local rate p99 wrong
  progress "$1"
  read -r rate p99 wrong < <(wrk "${WRK[@]}" -s dev/bench/steady.lua "$URL/" | tail -n 1)
  ledger
  progress
  printf '  %-8s %10s %8.1f %8.1f %10.1f %10s %10s %8s\n' "$1" "$(thousands "$rate")" \
    "$(calculate "$p99 / 1000")" "$(status VmRSS)" "$(calculate "$L_queue_bytes / 1048576")" \
    "$(thousands "$L_succ_msg_cnt")" "$(thousands "$L_fail_msg_cnt")" "$L_refused"
  if (( wrong > 0 )); then complain "$wrong requests went wrong"; fi
}

windows() {
  local left
  for (( left = $2; left > 0; left-- )); do window "$1"; done
}

# outage TITLE AWAY BACK: AWAY and BACK are what dev/kafka.sh is told.
outage() {
  local away=$2 back=$3
  progress 'starting'
  open_broker default outage "$PARTITIONS"
  open_worker "require('outage').start('$BOOTSTRAP', '$RUN')" "
  location = / { return 200 'hello, world\\n'; log_by_lua_block { require('outage').log() } }
  location = /ledger { content_by_lua_block { require('outage').ledger() } }
  location = /flush { content_by_lua_block { require('outage').flush() } }"
  REST=$(status VmRSS RssShmem)
  progress
  cat <<TEXT
$1
           requests/s  p99, ms  RSS, MB  queue, MB   in Kafka  in backup  refused
TEXT
  windows before "$WINDOWS_BEFORE"
  spawn "$STAGE/log/broker" dev/kafka.sh "$away" bench
  windows outage $(( (OUTAGE + WINDOW - 1) / WINDOW ))
  attend || die "the broker: $(tail -n 5 "$STAGE/log/broker")"
  spawn "$STAGE/log/broker" dev/kafka.sh "$back" bench
  windows after "$WINDOWS_AFTER"
  attend || die "the broker: $(tail -n 5 "$STAGE/log/broker")"
  judge
  close_worker bench
  close_broker
}

# judge: prints what became of the messages.
judge() {
  local in_kafka in_backup both lost foreign twice backup_twice queue peak
  progress 'reading back'
  get /flush >/dev/null || complain 'flush() did not end within a minute'
  ledger
  peak=$(status VmHWM)
  queue=$(calculate "$(cat "$LKFK_SHM"/lkfk-*/*.queue | wc -c) / 1048576")
  eval "$({
    dev/kafka.sh consume bench outage 'K %s\n'
    find "$STAGE/nginx/bench/backup" -type f -not -path '*/~journal/*' -exec cat {} + | awk -F '\t' '{ print "B", $4 }'
  } | awk -v run="$RUN" -v n="$L_accepted" -f dev/bench/outage.awk)"
  progress
  cat <<TEXT
  accepted   $(thousands "$L_accepted"), refused $(thousands "$L_refused")${L_why:+ ($L_why)}
  in Kafka   $(thousands "$in_kafka"), in the backup $(thousands "$in_backup"), lost $(thousands "$lost")
  in both    $(thousands "$both"); lkfk counts $(thousands "$L_fail_in_doubt_cnt") in doubt: sent, and the answer never came
  twice      $(thousands "$twice") in Kafka: the answer never came, so they were sent again
  memory     $(printf '%.1f MB at most; queue %.1f MB, worker without it at rest %.1f MB' "$peak" "$queue" "$REST")

TEXT
  if (( lost > 0 )); then complain "$lost messages are lost"; fi
  if (( foreign > 0 )); then complain "$foreign records are none of ours"; fi
  if (( backup_twice > 0 )); then complain "$backup_twice messages are in the backup twice"; fi
  if (( both > L_fail_in_doubt_cnt )); then
    complain "$both messages are in both places, and only $L_fail_in_doubt_cnt were in doubt"
  fi
  if (( $(calculate "$peak > $REST + $queue + $MEMORY") )); then
    complain "more than $MEMORY MB of memory beside that"
  fi
}

complain() {
  progress
  printf '  %s%s%s\n' "$RED" "$*" "$PLAIN"
  FAILED=1
}

dev/install.sh
stage_begin outage
if [[ -z ${LKFK_CPATH:-} ]]; then cargo build --quiet --release; fi
stage_library
RUN=$$ FAILED=0
outage "The broker is stopped for $OUTAGE s" stop start
outage "The broker is frozen for $OUTAGE s (SIGSTOP)" pause resume
cat <<TEXT
wrk ${WRK[*]} with a pause of 4 ms before each request; each is logged with 400 bytes from log_by_lua,
by one worker with the default configuration, to $PARTITIONS partitions of Kafka $VERSION. Broker, load and worker
share the processors.
$(machine)
$SOFTWARE
TEXT
if (( FAILED )); then die 'not all promises were kept'; fi
