#!/usr/bin/env bash
# Compares lkfk with other producers, each inside one nginx worker, on this machine and in one run:
# prints a table and says what is in it. Takes about a quarter of an hour. LKFK_CPATH, when set, is the
# directory of the lkfk.so to measure; else it is built.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/machine.sh
source dev/bench/worker.sh

OLD=3.9.1          # the last Kafka that lua-nginx-kafka can talk to
# Producer and Kafka version.
ROWS=('lkfk default' 'librdkafka default' "lkfk $OLD" "lua-nginx-kafka $OLD")

RATE=50000
PACED=200000       # messages of a paced run
FLAT=1000000       # messages of a run flat out
PARTITIONS=8
KEYS=64
ROUNDS=3
LINGER=100         # ms
BURST_LINGER=500   # ms, with bursts of one key, on so many partitions
BURST_PARTITIONS=4
CODECS='lz4 zstd'
CODEC_LEVEL=1
WRK=(-t1 -c32 -d4s)

CODEC_ROW='%-15s%-6s   %6.0f ns %5.0f ns     %5.0f B %6.0f\n'
TLS_ROW='%-15s %6.0f ns %5.0f ns %6.0f ns\n'
BURST_ROW='%-15s        %6.0f ns %5.0f ns %5.0f ns\n'
HEADER='                            paced, 50,000 msg/s          flat out          requests/s, p99
producer        Kafka   in log()     loop  process     msg/s  process   without           with         ratio'
ROW='%-15s %-6s %6.0f ns %5.0f ns %5.0f ns  %8s %5.0f ns  %5s %5.1f ms  %5s %5.1f ms   %.2f\n'

# --- One producer ---

# open_row PRODUCER VERSION PARTITIONS LINGER [CODEC]: broker, topic and worker, all fresh.
open_row() {
  local codec=nil
  if [[ -n ${5:-} ]]; then codec="'$5', $CODEC_LEVEL"; fi
  open_broker "$2" bench "$3"
  open_worker "require('producers').start('$1', '$BOOTSTRAP', $4, $codec)" "
  location = /pace { content_by_lua_file \"$ROOT/dev/bench/pace.lua\"; }
  location = /without { return 200 'hello, world\n'; }
  location = /with { return 200 'hello, world\n'; log_by_lua_block { require('access').log() } }
  location = /taken { content_by_lua_block {
    local access, producers = require 'access', require 'producers'
    producers.drain()
    ngx.say(access.taken, ' ', access.refused)
  } }"
  SAMPLES=$STAGE/samples
  : >"$SAMPLES"
  LOGGED=0
}

close_row() {
  close_worker bench
  close_broker
}

# --- Samples ---

sample() {
  printf '%s %s\n' "$1" "$2" >>"$SAMPLES"
}

# median NAME
median() {
  sed -n "s/^$1 //p" "$SAMPLES" | sort -g |
    awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# --- Measurements ---

# pace N RATE [idle]: one run, see read_run. CORES is what the broker used. BURSTS=1: each tick has one key. LINES=1: log
# lines.
pace() {
  local began=$EPOCHREALTIME ticks
  ticks=$(ticks_of "$BROKER")
  get "/pace?topic=bench&n=$1&rate=$2&keys=$KEYS&idle=${3:+1}&bursts=${BURSTS:-}&lines=${LINES:-}" \
    >"$STAGE/run"
  read_run "$STAGE/run"
  CORES=$(calculate "($(ticks_of "$BROKER") - $ticks) / 100 / $(since "$began")")
  if [[ -z ${3:-} ]]; then LOGGED=$(( LOGGED + $1 )); fi
}

paced_round() {
  local call thread process
  pace "$PACED" "$RATE" idle
  call=$CALL thread=$THREAD process=$PROCESS
  pace "$PACED" "$RATE"
  sample call "$(calculate "$CALL - $call")"
  sample loop "$(calculate "$THREAD - $thread")"
  sample process "$(calculate "$PROCESS - $process")"
  sample paced_broker "$CORES"
}

flat_round() {
  pace "$FLAT" 0
  sample flat_rate "$ACKED"
  sample flat_process "$PROCESS"
  sample flat_broker "$CORES"
}

# wrk_one NAME: load on that location.
wrk_one() {
  local rate p99 wrong
  read -r rate p99 wrong < <(wrk "${WRK[@]}" -s dev/bench/wrk.lua "$URL/$1" | tail -n 1)
  (( wrong == 0 )) || die "$wrong requests went wrong"
  sample "$1" "$rate"
  sample "$1_p99" "$(calculate "$p99 / 1000")"
  RATE_SEEN=$rate
}

wrk_round() {
  local without
  wrk_one without
  without=$RATE_SEEN
  wrk_one with
  sample ratio "$(calculate "$RATE_SEEN / $without")"
  get /taken >/dev/null
}

# arrived: records in the topic.
arrived() {
  local partition arguments=()
  for (( partition = 0; partition < PARTITIONS; partition++ )); do
    arguments+=(-t "bench:$partition:-1")
  done
  kcat -Q -b "$BOOTSTRAP" "${arguments[@]}" | awk '{ sum += $NF } END { print sum }'
}

# measure PRODUCER VERSION: a row of the table.
measure() {
  local name=$1 round own busy began taken refused lost
  progress "$name: starting"
  open_row "$name" "$2" "$PARTITIONS" "$LINGER"
  progress "$name on Kafka $VERSION: warming up"
  pace 100000 "$RATE"
  pace 500000 0
  wrk_round
  : >"$SAMPLES"
  progress "$name on Kafka $VERSION: waiting until the machine is quiet"
  await_quiet
  own=$(own_ticks "$BROKER" "$WORKER") busy=$(busy_ticks) began=$EPOCHREALTIME
  for (( round = 1; round <= ROUNDS; round++ )); do
    progress "$name on Kafka $VERSION: round $round of $ROUNDS"
    paced_round
    flat_round
    wrk_round
  done
  own=$(( $(own_ticks "$BROKER" "$WORKER") - own )) busy=$(( $(busy_ticks) - busy ))
  OTHERS+=("$(calculate "($busy - $own) / 100 / $(since "$began")")")
  PACED_BROKER+=("$(median paced_broker)") FLAT_BROKER+=("$(median flat_broker)")
  progress
  # shellcheck disable=SC2059 # a constant
  printf "$ROW" "$name" "$VERSION" "$(median call)" "$(median loop)" "$(median process)" \
    "$(kilo "$(median flat_rate)")" "$(median flat_process)" \
    "$(kilo "$(median without)")" "$(median without_p99)" \
    "$(kilo "$(median with)")" "$(median with_p99)" "$(median ratio)"
  MEDIANS+=("$name $2 $(median loop) $(median process) $(median flat_process)")

  read -r taken refused < <(get /taken)
  taken=$(( taken + LOGGED ))
  lost=$(( taken - $(arrived) ))
  if (( refused > 0 )); then echo "  $(thousands "$refused") refused under wrk: its queue was full"; fi
  if (( lost > 0 )); then echo "  $(thousands "$lost") of $(thousands "$taken") did not arrive"; fi
  if (( lost < 0 )); then echo "  $(thousands $(( -lost ))) of $(thousands "$taken") arrived twice"; fi
  if [[ $name == lkfk ]] && (( lost != 0 )); then FAILED=1; fi
  close_row
}

# measure_bursts PRODUCER: a line about bursts of one key with a long linger, which find nothing in the caches.
measure_bursts() {
  local BURSTS=1 round
  progress "$1: starting"
  open_row "$1" default "$BURST_PARTITIONS" "$BURST_LINGER"
  progress "$1: warming up with bursts"
  pace 100000 "$RATE"
  : >"$SAMPLES"
  progress "$1: waiting until the machine is quiet"
  await_quiet
  for (( round = 1; round <= ROUNDS; round++ )); do
    progress "$1: bursts, round $round of $ROUNDS"
    paced_round
  done
  progress
  # shellcheck disable=SC2059 # a constant
  printf "$BURST_ROW" "$1" "$(median call)" "$(median loop)" "$(median process)"
  BURST_PROCESS[$1]=$(median process)
  close_row
}

bursts() {
  local -A BURST_PROCESS=()
  local producer
  printf '\nBursts of one key, linger %s ms, %s partitions, 50,000 msg/s\n' "$BURST_LINGER" "$BURST_PARTITIONS"
  for producer in lkfk librdkafka; do
    if installed "$producer" || [[ $producer == lkfk ]]; then measure_bursts "$producer"; fi
  done
  if [[ -n ${BURST_PROCESS[librdkafka]:-} ]]; then
    printf 'The whole process takes %.2f of what it takes with librdkafka.\n' \
      "$(calculate "${BURST_PROCESS[lkfk]} / ${BURST_PROCESS[librdkafka]}")"
  fi
}

# measure_tls LISTENER [CA]: a line about the same load, with TLS where there is a CA.
measure_tls() {
  local address round protocol=${2:+TLS}
  address=$(from_env kafka/bench "$1")
  protocol=${protocol:-plaintext}
  progress "$protocol: starting"
  open_worker "require('producers').start('lkfk', '$address', $LINGER, nil, nil${2:+, [[$2]]})" "
    location = /pace { content_by_lua_file \"$ROOT/dev/bench/pace.lua\"; }"
  progress "$protocol: warming up"
  pace 200000 "$RATE"
  pace 500000 0
  : >"$SAMPLES"
  progress "$protocol: waiting until the machine is quiet"
  await_quiet
  for (( round = 1; round <= ROUNDS; round++ )); do
    progress "$protocol: round $round of $ROUNDS"
    paced_round
    flat_round
  done
  progress
  # shellcheck disable=SC2059 # a constant
  printf "$TLS_ROW" "$protocol" "$(median loop)" "$(median process)" "$(median flat_process)"
  TLS_PROCESS[$protocol]=$(median process) TLS_FLAT[$protocol]=$(median flat_process)
  close_worker bench
}

tls() {
  local -A TLS_PROCESS=() TLS_FLAT=()
  local certificates=$STAGE/certificates
  mkdir -p "$certificates"
  dev/kafka/certificates.sh "$certificates"
  SAMPLES=$STAGE/samples LOGGED=0
  printf '\nThe same load with TLS\n%-15s %9s %8s %9s\n' protocol loop process 'flat out'
  open_broker default bench "$PARTITIONS" "--tls=$certificates"
  measure_tls BOOTSTRAP
  measure_tls TLS_GOOD "$certificates/ca.pem"
  close_broker
  printf 'With TLS the whole process takes %.2f of what it takes without, and %.2f flat out.\n' \
    "$(calculate "${TLS_PROCESS[TLS]} / ${TLS_PROCESS[plaintext]}")" \
    "$(calculate "${TLS_FLAT[TLS]} / ${TLS_FLAT[plaintext]}")"
}

# measure_codec PRODUCER CODEC: a line about compressed access-log lines. What it takes in the broker's log is what it took
# on the wire, but for the requests' headers.
measure_codec() {
  local LINES=1 round batches=0 bytes=0 codec count size
  progress "$1, $2: starting"
  open_row "$1" default "$PARTITIONS" "$LINGER" "$2"
  progress "$1, $2: warming up"
  pace 200000 "$RATE"
  : >"$SAMPLES"
  progress "$1, $2: waiting until the machine is quiet"
  await_quiet
  for (( round = 1; round <= ROUNDS; round++ )); do
    progress "$1, $2: round $round of $ROUNDS"
    paced_round
  done
  progress
  while read -r codec count size; do
    [[ $codec == "$2" ]] || die "$1 stored $count batches with $codec instead of $2"
    batches=$(( batches + count )) bytes=$(( bytes + size ))
  done < <(LKFK_KAFKA_DATA=$LKFK_SHM/kafka dev/kafka.sh codecs bench bench)
  # shellcheck disable=SC2059 # a constant
  printf "$CODEC_ROW" "$1" "$2" "$(median loop)" "$(median process)" \
    "$(calculate "$bytes / $LOGGED")" "$(calculate "$LOGGED / $batches")"
  CODEC_PROCESS[$1 $2]=$(median process) CODEC_BYTES[$1 $2]=$(calculate "$bytes / $LOGGED")
  close_row
}

codecs() {
  local -A CODEC_PROCESS=() CODEC_BYTES=()
  local codec producer
  printf '\nAccess-log lines of some 300 bytes, level %s, 50,000 msg/s\n' "$CODEC_LEVEL"
  printf '%-15s%-6s   %9s %8s %11s %6s\n' producer codec loop process 'in the log' /batch
  for codec in $CODECS; do
    for producer in lkfk librdkafka; do
      if installed "$producer" || [[ $producer == lkfk ]]; then measure_codec "$producer" "$codec"; fi
    done
    if [[ -n ${CODEC_PROCESS[librdkafka $codec]:-} ]]; then
      printf '%s: the whole process takes %.2f of what it takes with librdkafka, and the log %.2f.\n' "$codec" \
        "$(calculate "${CODEC_PROCESS[lkfk $codec]} / ${CODEC_PROCESS[librdkafka $codec]}")" \
        "$(calculate "${CODEC_BYTES[lkfk $codec]} / ${CODEC_BYTES[librdkafka $codec]}")"
    fi
  done
}

installed() {
  case $1 in
    lua-nginx-kafka)
      luajit -e 'os.exit(package.searchpath("nginx.kafka.producer", package.path) and 0 or 1)' ;;
    librdkafka) luajit -e 'require("ffi").load "librdkafka.so.1"' 2>/dev/null ;;
  esac
}

# --- Lines ---

kilo() {
  thousands "$(calculate "$1 / 1000")"
  printf k
}

largest() {
  printf '%s\n' "$@" | sort -g | tail -n 1
}

# compare: lkfk with the others on the same broker.
compare() {
  printf '%s\n' "${MEDIANS[@]}" | awk '
    $1 == "lkfk" { loop[$2] = $3; paced[$2] = $4; flat[$2] = $5 }
    $1 != "lkfk" && $2 in loop && loop[$2] > 0 {
      printf "%s takes %.1f times the event loop, %.1f times the process paced and %.1f times flat out.\n",
        $1, $3 / loop[$2], $4 / paced[$2], $5 / flat[$2]
    }'
}

explain() {
  cat <<TEXT

$(compare)

400 bytes, $KEYS keys, $PARTITIONS partitions of one broker; batches of at most 500, linger $LINGER ms, acks 1, room for
100,000 messages. One worker; broker, load and worker share the processors; the broker writes to
memory. Medians of $ROUNDS rounds. Paced, all is less what a control run that logs nothing takes.
  in log()   CPU time inside the calls, in bursts of a millisecond's messages
  loop       CPU time of nginx's thread: what a message takes from the requests
  process    CPU time of the whole worker, its other threads included
  flat out   as much as the queue takes; msg/s until the last is acknowledged
  requests   wrk ${WRK[*]}, 13 bytes answered, without and with log() in log_by_lua; the ratio is
             the median of the rounds' ratios
The broker used at most $(percent "$(largest "${PACED_BROKER[@]}")") of a core when paced, $(percent "$(largest "${FLAT_BROKER[@]}")") flat out; other programs on this machine
at most $(percent "$(largest "${OTHERS[@]}")").
$(machine)
$SOFTWARE${RDKAFKA:+, librdkafka $RDKAFKA}
TEXT
}

# --- ---

MEDIANS=() OTHERS=() PACED_BROKER=() FLAT_BROKER=() FAILED=0 RDKAFKA=''
dev/install.sh librdkafka1 lua-nginx-kafka
stage_begin bench
if [[ -z ${LKFK_CPATH:-} ]]; then cargo build --quiet --release; fi
stage_library
if installed librdkafka; then
  RDKAFKA=$(luajit -e 'local ffi = require "ffi" ffi.cdef "const char *rd_kafka_version_str(void);"
    print(ffi.string(ffi.load("librdkafka.so.1").rd_kafka_version_str()))')
fi
dev/kafka.sh fetch
dev/kafka.sh fetch "$OLD"
echo "$HEADER"
for row in "${ROWS[@]}"; do
  read -r producer version <<<"$row"
  if [[ $producer != lkfk ]] && ! installed "$producer"; then
    echo "$producer is not installed"
    continue
  fi
  measure "$producer" "$version"
done
explain
bursts
codecs
tls
if (( FAILED )); then die 'lkfk lost or duplicated messages'; fi
