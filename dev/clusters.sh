#!/usr/bin/env bash
# Two producers in one process, each on a cluster of its own: what one costs the other when its cluster is
# down, how many threads they take, and who adopts what after a kill -9. SECONDS_EACH=15 is how long each
# measurement takes.
# shellcheck disable=SC2154 # tell() sets A_NAME
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/worker.sh

SECONDS_EACH=${SECONDS_EACH:-15}
FAILED=0

# start_program: the producers; their commands go to descriptor 3, and their answers come from 4.
start_program() {
  rm -f "$STAGE/commands" "$STAGE/answers"
  mkfifo "$STAGE/commands" "$STAGE/answers"
  "${CARGO_TARGET_DIR:-$ROOT/target}/release/examples/two_clusters" "$STAGE/clusters" "$ONE" "$TWO" <"$STAGE/commands" >"$STAGE/answers" &
  PROGRAM=$!
  exec 3>"$STAGE/commands" 4<"$STAGE/answers"
}

# tell COMMAND: sets ANSWER, and each NAME=VALUE of it as A_NAME.
tell() {
  local pair
  echo "$1" >&3
  read -r ANSWER <&4 || die "the program with the producers ended: it did not answer $1"
  for pair in $ANSWER; do printf -v "A_${pair%%=*}" %s "${pair#*=}"; done
}

complain() {
  echo "  FAILED: $1"
  FAILED=1
}

# arrived NAME: messages of the cluster NAME, and those among them that are not its own.
arrived() {
  dev/kafka.sh consume "$1" clusters '%s\n' | sort -u >"$STAGE/arrived"
  ARRIVED=$(grep -c "^$1 " "$STAGE/arrived" || true)
  STRANGERS=$(grep -vc "^$1 " "$STAGE/arrived" || true)
}

dev/install.sh
stage_begin clusters
cargo build --quiet --release --no-default-features --features net --example two_clusters
dev/kafka.sh fetch
for name in one two; do
  progress "starting cluster $name"
  dev/kafka.sh start "$name"
  dev/kafka.sh topic "$name" clusters 4
done
progress
ONE=$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/one/env")
TWO=$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/two/env")

start_program
tell 'measure 3'
progress "both clusters up: $SECONDS_EACH s"
tell "measure $SECONDS_EACH"
up=$A_p99
progress
printf '  both up:        %6d messages, log() to acknowledgement p50 %5d us, p99 %5d us; %d threads\n' \
  "$A_messages" "$A_p50" "$A_p99" "$A_threads"
dev/kafka.sh kill two
progress "cluster two is down: $SECONDS_EACH s"
tell "measure $SECONDS_EACH"
progress
printf '  cluster two down: %4d messages, log() to acknowledgement p50 %5d us, p99 %5d us; %d threads\n' \
  "$A_messages" "$A_p50" "$A_p99" "$A_threads"
awk -v down="$A_p99" -v up="$up" 'BEGIN { printf "  p99 with two down, of that with both up: %.2f\n", down / up }'

tell 'log 1000'
waiting=$A_waiting
{ kill -9 "$PROGRAM" && wait "$PROGRAM"; } 2>/dev/null || true
exec 3>&- 4<&-
dev/kafka.sh start two >/dev/null
start_program
tell 'drain'
# Adopted queues go when they are empty: then each producer has its own.
deadline=$(( SECONDS + 30 ))
queues=("$STAGE"/clusters/queue/lkfk-*/*.queue)
while (( ${#queues[@]} > 2 )); do
  (( SECONDS < deadline )) || { complain 'a queue was not adopted'; break; }
  sleep 0.2
  queues=("$STAGE"/clusters/queue/lkfk-*/*.queue)
done
arrived one
if (( STRANGERS > 0 )); then complain "$STRANGERS messages of others are in cluster one"; fi
one=$ARRIVED
arrived two
if (( STRANGERS > 0 )); then complain "$STRANGERS messages of others are in cluster two"; fi
printf '  after kill -9 with %s messages waiting for cluster two: %d in cluster one, %d in cluster two\n' \
  "$waiting" "$one" "$ARRIVED"
if (( ARRIVED < waiting )); then complain "only $ARRIVED of at least $waiting messages are in cluster two"; fi
exec 3>&-
wait "$PROGRAM" || complain 'the producers did not end well'
exec 4<&-
(( FAILED == 0 ))
