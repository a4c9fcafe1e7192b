#!/usr/bin/env bash
# Shows lkfk at work: a real Kafka, a real nginx, requests from wrk, each logged to Kafka from
# log_by_lua, and what of it arrived; then the same while the worker and the broker are killed. KEEP=1
# leaves all up until Ctrl-C. Fails when anything is lost, duplicated or out of order.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

PARTITIONS=4
SECONDS_OF_LOAD=3
LOOP=200000
# Seconds for what is waited for; it takes few.
PATIENCE=20
# That the broker stays dead; then it has to start, too.
BROKER_AWAY=2

write_nginx_conf() {
  PREFIX=$STAGE/nginx/demo
  mkdir -p "$PREFIX/backup"
  cat >"$PREFIX/http.conf" <<CONF
include cpath.conf;
lua_package_path '$ROOT/dev/demo/?.lua;;';
lua_shared_dict kfk 1m;
init_worker_by_lua_block {
  require("demo").start {
    metadata_broker_list = { "$BOOTSTRAP" },
    topics = { "access", "loop", "orders" },
    request_required_acks = -1, -- with it goes enable_idempotence
    message_timeout_ms = 30000, -- longer than the broker will be away
    -- Room for what a slow machine's broker does not keep up with.
    queue_buffering_max_messages = 400000,
    queue_buffering_max_kbytes = 131072,
    queue_path = "$LKFK_SHM",
    backpath = "$PREFIX/backup/",
  }
}
server {
  include listen.conf;
  keepalive_requests 1000000000;
  location / {
    return 200 "hello\n";
    log_by_lua_block { require("demo").log() }
  }
  location = /order { content_by_lua_block { require("demo").order() } }
  location = /stats { content_by_lua_block { require("demo").stats() } }
  location = /worker { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
  location = /flush { content_by_lua_block { require("demo").flush() } }
  location = /measure { content_by_lua_block { require("demo").measure() } }
}
CONF
}

# counter NAME: a counter of the worker.
counter() {
  awk -v name="$1" '$1 == name { value = $2 } END { print value + 0 }' "$STAGE/stats"
}

fetch_stats() {
  curl -sSf --max-time 5 "$URL/stats" >"$STAGE/stats"
}

# number TEXT: with a comma every three digits.
number() {
  sed ':a; s/\([0-9]\)\([0-9]\{3\}\)\($\|[^0-9]\)/\1,\2\3/; ta' <<<"$1"
}

# row NAME NUMBER REMARK: a line of the report.
row() {
  REPORT+=("$(printf '  %-28s%12s   %s' "$1" "$(number "$2")" "$(number "$3")")")
}

# judge FILE: counts lines "PARTITION SEQUENCE", those seen twice, those after a later one of their
# partition, and each partition's; as shell assignments.
judge() {
  awk '
    { total++; count[$1]++ }
    $2 in seen { duplicates++ }
    $2 + 0 < last[$1] { disordered++ }
    { seen[$2] = 1; last[$1] = $2 + 0 }
    END {
      printf "arrived=%d duplicates=%d disordered=%d spread=\"", total, duplicates, disordered
      for (p = 0; p in count || p < partitions; p++) printf "%s%d", p ? "  " : "", count[p]
      print "\""
    }' partitions="$PARTITIONS" "$1"
}

prepare() {
  local topic
  dev/install.sh
  if [[ -z ${LKFK_CPATH:-} ]]; then step 'lkfk.so' cargo build --release; fi
  step 'Kafka, from Maven' dev/kafka.sh fetch
  step 'a broker' dev/kafka.sh start demo
  BOOTSTRAP=$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/demo/env")
  for topic in access loop orders; do
    step "topic $topic" dev/kafka.sh topic demo "$topic" "$PARTITIONS"
  done
  stage_library
  write_nginx_conf
  step 'nginx, one worker' dev/nginx.sh start demo
  URL=http://127.0.0.1:$(sed -n 's/^PORT=//p' "$PREFIX/env")
}

# Requests, and what became of them.
serve() {
  local requests rate accepted arrived duplicates disordered spread batches
  step "wrk: 16 connections for $SECONDS_OF_LOAD s" \
    wrk -t 1 -c 16 -d "$SECONDS_OF_LOAD" "$URL/hello?from=wrk"
  rate=$(awk '/^Requests\/sec/ { printf "%d", $2 }' "$STEP_LOG")
  step 'flush' curl -sSf "$URL/flush"
  fetch_stats
  requests=$(counter requests) accepted=$(counter accepted_cnt)
  step 'read back with kcat' dev/kafka.sh consume demo access '%p %s\n'
  sample=$(tail -n 1 "$STEP_LOG" | cut -d ' ' -f 2-)
  sed 's/^\([0-9]*\) {"seq":\([0-9]*\),.*/\1 \2/' "$STEP_LOG" >"$STAGE/access"
  eval "$(judge "$STAGE/access")"
  batches=$(counter batches_sent)
  row 'requests served' "$requests" "$rate a second, each logged from log_by_lua"
  row 'messages accepted by log()' "$accepted" ''
  row 'messages in Kafka' "$arrived" \
    "$(( accepted - arrived + duplicates )) lost, $duplicates duplicates, $disordered out of order"
  row '  by partition' '' "$spread"
  row 'batches' "$batches" \
    "of $(( arrived / (batches ? batches : 1) )) messages on average, $(counter batch_records_max) at most"
  if (( requests != accepted || accepted != arrived || duplicates || disordered || requests == 0 )); then
    GOOD=0
  fi
}

# log() in a loop, timed on nginx's thread.
loop() {
  local median p99 before=0 accepted arrived
  before=$(counter accepted_cnt)
  step "$(number "$LOOP") messages in a loop" curl -sSf "$URL/measure?count=$LOOP"
  median=$(awk '$1 == "median" { print $2 }' "$STEP_LOG")
  p99=$(awk '$1 == "p99" { print $2 }' "$STEP_LOG")
  step 'flush again' curl -sSf "$URL/flush"
  fetch_stats
  accepted=$(( $(counter accepted_cnt) - before ))
  step 'read back the loop' dev/kafka.sh consume demo loop '%p\n'
  arrived=$(wc -l <"$STEP_LOG")
  row 'in a loop, accepted' "$accepted" '400 bytes each'
  row 'in a loop, in Kafka' "$arrived" ''
  row "on nginx's event loop" "$median ns" "a message, median; 99th percentile $p99 ns"
  if (( accepted != LOOP || arrived != LOOP )); then GOOD=0; fi
}

# --- Faults ---

# happened NAME BEGUN: a line like a step's, for what has just come about.
happened() {
  printf '  %-46s%6.1f s\n' "$1" "$(since "$2")"
}

# remark TEXT: what is seen of it.
remark() {
  printf '    %s%s%s\n' "$DIM" "$*" "$PLAIN"
}

# await COMMAND...: until it succeeds.
await() {
  local deadline=$(( SECONDS + PATIENCE ))
  until "$@"; do
    if (( SECONDS > deadline )); then die "in vain for $PATIENCE s: $*"; fi
    sleep 0.02
  done
}

# The queue of a worker that is gone was taken over by the one that answers.
adopted() {
  fetch_stats 2>/dev/null && (( $(counter adopted_cnt) > 0 ))
}

# first_acknowledged COUNT: more than so many. Notes in `answered` when the broker was found up, and in
# ACKED_AFTER how long after that it acknowledged.
first_acknowledged() {
  if [[ -z $answered ]] && ! running "$SPAWNED"; then answered=$EPOCHREALTIME; fi
  fetch_stats 2>/dev/null && (( $(counter succ_msg_cnt) > $1 )) || return 1
  ACKED_AFTER='as soon as it answers'
  if [[ -n $answered ]]; then ACKED_AFTER="$(printf %.1f "$(since "$answered")") s after it answers"; fi
}

worker() {
  curl -sSf --max-time 5 "$URL/worker" 2>/dev/null
}

kill_worker() {
  local pid begun
  pid=$(await worker)
  begun=$EPOCHREALTIME
  kill -KILL "$pid"
  await adopted
  ADOPTED=$(counter adopted_cnt) ADOPTED_AFTER=$(since "$begun")
  happened "kill -9 of nginx's worker, process $pid" "$begun"
  remark "the next one, process $(worker), took over its queue:" \
    "$(number "$ADOPTED") messages that Kafka had not acknowledged"
}

kill_broker() {
  local before answered='' begun=$EPOCHREALTIME
  dev/kafka.sh kill demo
  happened 'kill -9 of the broker' "$begun"
  sleep "$BROKER_AWAY"
  fetch_stats
  before=$(counter succ_msg_cnt)
  remark "log() goes on taking messages; $(number "$(counter queue_messages)") wait in the queue"
  AWAY=$begun begun=$EPOCHREALTIME
  spawn "$STAGE/log/broker" dev/kafka.sh start demo
  await first_acknowledged "$before"
  AWAY=$(since "$AWAY")
  attend || die "the broker did not start: $(cat "$STAGE/log/broker")"
  happened 'the broker is started again' "$begun"
  remark "first acknowledgement $ACKED_AFTER, $(printf %.1f "$AWAY") s after the kill"
}

# Nothing waits in the queue, nor in the backup.
settled() {
  fetch_stats 2>/dev/null &&
    (( $(counter queue_messages) + $(counter spill_waiting) + $(counter replay_waiting_bytes) == 0 )) &&
    (( $(counter replayed_cnt) >= $(counter fail_msg_cnt) ))
}

# judge_orders: compares replies, lines "yes ID" and "no ID", with records, lines "PARTITION ID"; as
# shell assignments. Order counts per worker and partition.
judge_orders() {
  awk '
    FNR == NR { if ($1 == "yes") said[$2] = 1; else refused++; next }
    { arrived++ }
    $2 in seen { duplicates++; next }
    {
      seen[$2] = 1
      split($2, part, "-")
      stream = part[1] " " $1
      if (part[2] + 0 < last[stream]) disordered++
      last[stream] = part[2] + 0
      if (!($2 in said)) unheard++
    }
    END {
      for (id in said) { accepted++; if (!(id in seen)) lost++ }
      printf "accepted=%d refused=%d arrived=%d lost=%d duplicates=%d disordered=%d unheard=%d\n",
        accepted, refused, arrived, lost, duplicates, disordered, unheard
    }' "$STAGE/replies" "$STAGE/orders"
}

# Kills, while orders come in and their replies say what log() took; and what became of each.
break_things() {
  local load accepted refused arrived lost duplicates disordered unheard replayed
  echo '  orders come in, some thousand a second, and meanwhile:'
  spawn "$STAGE/log/orders" wrk -t 1 -c 16 -d 120 -s dev/demo/load.lua "$URL/order" -- "$STAGE/replies"
  load=$SPAWNED
  sleep 1
  kill_worker
  sleep 1
  kill_broker
  sleep 1
  halt "$load" INT 5 || die "wrk: $(tail -n 3 "$STAGE/log/orders")"
  step 'the rest' curl -sSf "$URL/flush"
  await settled
  replayed=$(counter replayed_cnt)
  step 'read back the orders' dev/kafka.sh consume demo orders '%p %s\n'
  sed 's/^\([0-9]*\) {"id":"\([0-9-]*\)",.*/\1 \2/' "$STEP_LOG" >"$STAGE/orders"
  eval "$(judge_orders)"
  row 'with kills, accepted' "$accepted" "replies that said yes, $refused that said no"
  row 'with kills, in Kafka' "$arrived" \
    "$lost lost, $duplicates duplicates, $disordered out of order"
  if (( unheard )); then
    row '  without a reply' "$unheard" 'of these: a kill or the end of the load came before it'
  fi
  row '  worker killed' "$ADOPTED" \
    "messages taken over by the next one, after $(printf %.1f "$ADOPTED_AFTER") s"
  row '  broker killed' "$(printf %.1f "$AWAY") s" 'without an acknowledgement'
  if (( replayed )); then
    row '  backup' "$replayed" 'messages went there, and were sent again'
    # They come after newer ones.
    disordered=0 ORDERED=', and in order but for what the backup sent again'
  fi
  if (( accepted == 0 || refused || lost || duplicates || disordered )); then GOOD=0; fi
}

report() {
  printf '\n'
  printf '%s\n' "${REPORT[@]}" | sed 's/ *$//'
  printf '\n  the last one: %s\n\n' "$sample"
  if (( GOOD )); then
    echo "Every message that log() accepted is in Kafka once$ORDERED: nothing is missing, and there are no duplicates."
  elif (( refused && !lost && !duplicates && !disordered )); then
    echo "${RED}log() refused $refused messages, since its queue was full.$PLAIN All that it accepted are in Kafka."
  else
    echo "${RED}Not every message is in Kafka once and in order.$PLAIN nginx says:"
    tail -n 10 "$PREFIX/error.log"
  fi
}

keep() {
  cat <<TEXT

Up until Ctrl-C:
  curl $URL/hello          one request, one message
  curl $URL/order          one message, and whether log() took it
  curl $URL/stats
  kcat -C -b $BOOTSTRAP -t access -o -5 -e
  wrk -c 16 -d 5 $URL/hello
  error log  $PREFIX/error.log
TEXT
  trap 'exit 0' INT TERM
  spawn - sleep infinity
  attend
}

GOOD=1 REPORT=() sample='' ORDERED=', and in order'
stage_begin demo
echo 'lkfk demo'
prepare
serve
loop
break_things
report
if [[ -n ${KEEP:-} && $KEEP != 0 ]]; then keep; fi
(( GOOD ))
