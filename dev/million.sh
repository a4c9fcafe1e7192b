#!/usr/bin/env bash
# A million messages from one nginx worker to Kafka and back: says what one costs, and whether each
# arrived, once and in its key's order. Fails unless all did. LKFK_CPATH, when set, is the directory
# of the lkfk.so to measure; else it is built.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/machine.sh
source dev/bench/worker.sh

COUNT=1000000
RATE=50000
KEYS=1000
PARTITIONS=8
CONTROL=250000

# pace TEXT TOPIC COUNT [idle]: one run, see read_run, with what is acknowledged shown meanwhile.
pace() {
  local curl before
  before=$(get /acknowledged)
  get "/pace?topic=$2&n=$3&rate=$RATE&keys=$KEYS&run=$RUN&idle=${4:+1}" >"$STAGE/run" &
  curl=$!
  while alive "$curl"; do
    progress "$1${4:-, acknowledged: $(thousands $(( $(get /acknowledged) - before )))}"
    sleep 0.5
  done
  progress
  wait "$curl"
  read_run "$STAGE/run"
}

dev/install.sh
stage_begin million
if [[ -z ${LKFK_CPATH:-} ]]; then cargo build --quiet --release; fi
stage_library
RUN=$$
progress 'starting'
open_broker default million "$PARTITIONS"
dev/kafka.sh topic bench warm "$PARTITIONS"
open_worker "require('producers').start('lkfk', '$BOOTSTRAP', 100)" "
  location = /pace { content_by_lua_file \"$ROOT/dev/bench/pace.lua\"; }
  location = /acknowledged { content_by_lua_block {
    ngx.say(require('lkfk.kfk').stats().succ_msg_cnt)
  } }"
pace 'warming up' warm 100000
progress 'waiting until the machine is quiet'
await_quiet

own=$(own_ticks "$BROKER" "$WORKER") busy=$(busy_ticks) began=$EPOCHREALTIME
pace 'control run' - "$CONTROL" ' '
call=$CALL call_median=$CALL_MEDIAN threads=$(calculate "$PROCESS - $THREAD")
pace "$(thousands "$COUNT") messages" million "$COUNT"
call=$(calculate "$CALL - $call") call_median=$(calculate "$CALL_MEDIAN - $call_median")
process=$(calculate "$call + $PROCESS - $THREAD - $threads")
own=$(( $(own_ticks "$BROKER" "$WORKER") - own )) busy=$(( $(busy_ticks) - busy ))
others=$(calculate "($busy - $own) / 100 / $(since "$began")")

progress 'reading back'
code=0
verdict=$(dev/kafka.sh consume bench million '%k %s\n' |
  awk -v run="$RUN" -v n="$COUNT" -v keys="$KEYS" -f dev/bench/order.awk) || code=$?
progress
[[ $verdict == arrived=* ]] || die 'the records could not be read back'

cat <<TEXT
$(thousands "$COUNT") messages of 400 bytes with $KEYS keys, $(thousands "$ACKED")/s, to $PARTITIONS partitions of Kafka $VERSION
  event loop     $(printf %4.0f "$call") ns a message, $(printf %.0f "$call_median") in the median burst
  whole process  $(printf %4.0f "$process") ns a message
  read back      ${verdict//_/ }

Event loop: CPU time inside of kfk.log(), called from Lua that is compiled and warm, in bursts of a
millisecond's messages. Whole process: that, and the CPU time of the worker's other threads. Both
less what a control run takes that makes the same payloads at the same pace and logs nothing.
Order: each message says how many of its key came before; disordered ones follow a later one.
Other programs on this machine used $(percent "$others") of a core.
$(machine)
$SOFTWARE
TEXT
if (( code != 0 )); then die 'not every message arrived once and in order'; fi
