#!/usr/bin/env bash
# Shows lkfk at work: a real Kafka, a real nginx, requests from wrk, each logged to Kafka from
# log_by_lua, and what of it arrived. KEEP=1 leaves all up until Ctrl-C. Fails when anything is lost,
# doubled or out of order.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

PARTITIONS=4
SECONDS_OF_LOAD=5
LOOP=200000

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
    topics = { "access", "loop" },
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
  location = /stats { content_by_lua_block { require("demo").stats() } }
  location = /flush { content_by_lua_block { require("demo").flush() } }
  location = /measure { content_by_lua_block { require("demo").measure() } }
}
CONF
}

# stat NAME: a counter of the worker.
stat() {
  awk -v name="$1" '$1 == name { value = $2 } END { print value + 0 }' "$STAGE/stats"
}

fetch_stats() {
  curl -sSf "$URL/stats" >"$STAGE/stats"
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
    $2 in seen { doubled++ }
    $2 + 0 < last[$1] { disordered++ }
    { seen[$2] = 1; last[$1] = $2 + 0 }
    END {
      printf "arrived=%d doubled=%d disordered=%d spread=\"", total, doubled, disordered
      for (p = 0; p in count || p < partitions; p++) printf "%s%d", p ? "  " : "", count[p]
      print "\""
    }' partitions="$PARTITIONS" "$1"
}

prepare() {
  dev/install.sh
  if [[ -z ${LKFK_CPATH:-} ]]; then step 'lkfk.so' cargo build --release; fi
  step 'Kafka, from Maven' dev/kafka.sh fetch
  step 'a broker' dev/kafka.sh start demo
  BOOTSTRAP=$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/demo/env")
  step 'topic access' dev/kafka.sh topic demo access "$PARTITIONS"
  step 'topic loop' dev/kafka.sh topic demo loop "$PARTITIONS"
  stage_library
  write_nginx_conf
  step 'nginx, one worker' dev/nginx.sh start demo
  URL=http://127.0.0.1:$(sed -n 's/^PORT=//p' "$PREFIX/env")
}

# Requests, and what became of them.
serve() {
  local requests rate accepted arrived doubled disordered spread batches
  step "wrk: 16 connections for $SECONDS_OF_LOAD s" \
    wrk -t 1 -c 16 -d "$SECONDS_OF_LOAD" "$URL/hello?from=wrk"
  rate=$(awk '/^Requests\/sec/ { printf "%d", $2 }' "$STEP_LOG")
  step 'flush' curl -sSf "$URL/flush"
  fetch_stats
  requests=$(stat requests) accepted=$(stat msg_cnt)
  step 'read back with kcat' dev/kafka.sh consume demo access '%p %s\n'
  sample=$(tail -n 1 "$STEP_LOG" | cut -d ' ' -f 2-)
  sed 's/^\([0-9]*\) {"seq":\([0-9]*\),.*/\1 \2/' "$STEP_LOG" >"$STAGE/access"
  eval "$(judge "$STAGE/access")"
  batches=$(stat batches_sent)
  row 'requests served' "$requests" "$rate a second, each logged from log_by_lua"
  row 'messages accepted by log()' "$accepted" ''
  row 'messages in Kafka' "$arrived" \
    "$(( accepted - arrived + doubled )) lost, $doubled doubled, $disordered out of order"
  row '  by partition' '' "$spread"
  row 'batches' "$batches" \
    "of $(( arrived / (batches ? batches : 1) )) messages on average, $(stat batch_records_max) at most"
  if (( requests != accepted || accepted != arrived || doubled || disordered || requests == 0 )); then
    GOOD=0
  fi
}

# log() in a loop, timed on nginx's thread.
loop() {
  local median p99 before=0 accepted arrived
  before=$(stat msg_cnt)
  step "$(number "$LOOP") messages in a loop" curl -sSf "$URL/measure?count=$LOOP"
  median=$(awk '$1 == "median" { print $2 }' "$STEP_LOG")
  p99=$(awk '$1 == "p99" { print $2 }' "$STEP_LOG")
  step 'flush again' curl -sSf "$URL/flush"
  fetch_stats
  accepted=$(( $(stat msg_cnt) - before ))
  step 'read back the loop' dev/kafka.sh consume demo loop '%p\n'
  arrived=$(wc -l <"$STEP_LOG")
  row 'in a loop, accepted' "$accepted" '400 bytes each'
  row 'in a loop, in Kafka' "$arrived" ''
  row "on nginx's event loop" "$median ns" "a message, median; 99th percentile $p99 ns"
  if (( accepted != LOOP || arrived != LOOP )); then GOOD=0; fi
}

report() {
  printf '\n'
  printf '%s\n' "${REPORT[@]}" | sed 's/ *$//'
  printf '\n  the last one: %s\n\n' "$sample"
  if (( GOOD )); then
    echo 'Every message that log() accepted is in Kafka once, and in order.'
  else
    echo "${RED}Not every message is in Kafka once and in order.$PLAIN nginx says:"
    tail -n 10 "$PREFIX/error.log"
  fi
}

keep() {
  cat <<TEXT

Up until Ctrl-C:
  curl $URL/hello          one request, one message
  curl $URL/stats
  kcat -C -b $BOOTSTRAP -t access -o -5 -e
  wrk -c 16 -d 5 $URL/hello
  error log  $PREFIX/error.log
TEXT
  trap 'exit 0' INT TERM
  spawn - sleep infinity
  attend
}

GOOD=1 REPORT=() sample=''
stage_begin demo
echo 'lkfk demo'
prepare
serve
loop
report
if [[ -n ${KEEP:-} && $KEEP != 0 ]]; then keep; fi
(( GOOD ))
