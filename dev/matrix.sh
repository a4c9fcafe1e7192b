#!/usr/bin/env bash
# lkfk with real brokers of all ages: matrix.sh [VERSION...], without arguments all of VERSIONS. With
# each: a thousand messages and back; a thousand more while the broker is killed and started again; two
# hundred from a producer that is told the version instead of asking for it, and where there is SCRAM, two
# hundred from one that authenticates. With each codec that the version takes a batch of a thousand and batches of one, of
# 1 byte to 1 MiB, are read back by kcat and by Java's consumer of that release. Every message must arrive, in the partition that its key gives, in
# order, and with its time where Kafka keeps that. Where brokers know idempotent producers, the model of a broker
# that the simulation trusts must give the answers that they give (rules: how many were compared). Prints a
# table, and fails unless all of it is as it must be. LKFK_CPATH, when set, is the directory of the lkfk.so to test; else it is built.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

# One a line: the release, and the version of Produce that lkfk speaks to it.
VERSIONS='0.8.2.2 0
0.9.0.1 0
0.10.2.2 2
0.11.0.3 3
1.1.1 5
2.8.2 9
3.9.1 11
4.3.1 13
4.4.0 13'

PARTITIONS=5
MESSAGES=1000
SECONDS_OF_LOAD=4
UNASKED=200
AUTHENTICATED=200
CODEC_BATCH=1000
# Bytes of the messages that follow, each a batch by itself.
CODEC_SIZES='1 2 63 1000 10000 100000 1000000 1048576'
SASL_USER=matrix
SASL_PASSWORD=open-sesame

# --- One version, a process of its own: what it finds out is in $STAGE/matrix/VERSION ---

check_version() {
  local version=$1 produce begun rules sasl
  produce=$(sed -n "s/^$version //p" <<<"$VERSIONS")
  RESULT=$STAGE/matrix/$version BROKER=matrix-$version SINCE=$(date +%s)000
  mkdir -p "$STAGE/matrix"
  dev/kafka.sh fetch "$version"
  begun=$EPOCHREALTIME
  dev/kafka.sh start "$BROKER" "$version" "--sasl=$SASL_USER:$SASL_PASSWORD" \
    message.max.bytes=8388608 replica.fetch.max.bytes=8388608
  dev/kafka.sh topic "$BROKER" matrix "$PARTITIONS"
  BOOTSTRAP=$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/$BROKER/env")

  start_nginx
  timed round_trip check_round_trip "$produce"
  timed restart check_restart
  stop_nginx
  start_nginx request_required_acks=-1 api_version_request=false \
    "broker_version_fallback='$version'"
  timed unasked check_unasked "$produce"
  stop_nginx
  if (( produce >= 3 )); then
    dev/kafka.sh topic "$BROKER" rules 1
    rules=$("$RULES" "$BOOTSTRAP" rules "$version")
    tell rules "${rules%% *}"
  fi
  timed codecs check_codecs "$produce"
  sasl=$(sed -n 's/^SASL=//p' "$STAGE/kafka/$BROKER/env")
  if [[ -n $sasl ]]; then
    BOOTSTRAP=$sasl
    start_nginx "security_protocol='sasl_plaintext'" "sasl_mechanisms='SCRAM-SHA-256'" \
      "sasl_username='$SASL_USER'" "sasl_password='$SASL_PASSWORD'"
    timed sasl check_authenticated
    stop_nginx
  fi

  dev/kafka.sh stop "$BROKER"
  rm -rf "$STAGE/kafka/$BROKER"
  tell total "$(since "$begun")"
}

check_round_trip() {
  get "/log?from=1&to=$MESSAGES"
  get /flush
  judge "$MESSAGES"
  if (( DUPLICATES > 0 )); then die "$DUPLICATES messages are there twice"; fi
  find_connection
  tell produce "$PRODUCE"
  [[ $PRODUCE == "$1" ]] || die "Produce v$PRODUCE was used, and not v$1"
}

# What was on its way at the moment of the kill may be there twice.
check_restart() {
  local code=0
  spawn - curl --silent --show-error --fail --max-time 60 \
    "$URL/log?from=$(( MESSAGES + 1 ))&to=$(( 2 * MESSAGES ))&seconds=$SECONDS_OF_LOAD"
  sleep 1
  dev/kafka.sh kill "$BROKER"
  dev/kafka.sh start "$BROKER"
  attend || code=$?
  if (( code )); then die 'not all messages were accepted'; fi
  get /flush
  judge "$(( 2 * MESSAGES ))"
  tell duplicates "$DUPLICATES"
}

check_unasked() {
  get "/log?from=$(( 2 * MESSAGES + 1 ))&to=$(( 2 * MESSAGES + UNASKED ))"
  get /flush
  judge "$(( 2 * MESSAGES + UNASKED ))"
  find_connection
  [[ $CONNECTION == *"Produce v$1, not asked"* ]] || die "not told but asked: $CONNECTION"
}

# check_codecs PRODUCE: each codec that this version of Produce takes; zstd gives way to gzip where it is not taken.
check_codecs() {
  local codec topic wanted stored read
  for codec in gzip snappy lz4 zstd; do
    topic=codec-$codec wanted=$codec
    if [[ $codec == zstd ]]; then wanted+=,gzip; fi
    dev/kafka.sh topic "$BROKER" "$topic" 1
    start_nginx "topics={'$topic'}" "compression_codec='$wanted'" "batch_num_messages=$CODEC_BATCH" \
      message_max_bytes=2000000 batch_size=4000000 queue_buffering_max_ms=1000
    if [[ $codec == zstd ]] && (( $1 < 7 )); then codec=gzip; fi
    get "/log_sizes?topic=$topic&batch=$CODEC_BATCH&sizes=${CODEC_SIZES// /,}"
    stop_nginx
    stored=$(dev/kafka.sh codecs "$BROKER" "$topic" | cut -d ' ' -f 1 | xargs)
    # What is a byte or two is sent as it is.
    [[ $stored == "$codec none" || $stored == "none $codec" ]] || die "$topic: stored with $stored"
    for read in consume read; do
      dev/kafka.sh "$read" "$BROKER" "$topic" '%k %S:%s\n' >"$STAGE/matrix/records"
      luajit dev/matrix/judge_sizes.lua "$CODEC_BATCH" "$CODEC_SIZES" <"$STAGE/matrix/records" ||
        die "$topic, by $read"
    done
  done
}

check_authenticated() {
  local before=$(( 2 * MESSAGES + UNASKED ))
  get "/log?from=$(( before + 1 ))&to=$(( before + AUTHENTICATED ))"
  get /flush
  judge "$(( before + AUTHENTICATED ))"
  find_connection
  [[ $CONNECTION == *"SCRAM-SHA-256 as $SASL_USER"* ]] || die "not authenticated: $CONNECTION"
}

# judge COUNT: all that is in the topic must be the messages from 1 to COUNT. Sets DUPLICATES.
judge() {
  local backup verdict times=with
  backup=$(find "$PREFIX/backup" -type f -size +0 -print)
  if [[ -n $backup ]]; then die "in the backup: $(head -n 3 "$backup")"; fi
  if [[ ${BROKER#matrix-} == 0.[89].* ]]; then times=without; fi
  dev/kafka.sh consume "$BROKER" matrix '%p %T %k %s\n' >"$STAGE/matrix/records"
  verdict=$(luajit dev/matrix/judge.lua "$1" "$PARTITIONS" "$times" "$SINCE" \
    <"$STAGE/matrix/records") || die "$verdict"
  DUPLICATES=$verdict
}

# start_nginx LUA-ASSIGNMENT...: with these options.
start_nginx() {
  local option
  PREFIX=$STAGE/nginx/$BROKER
  rm -rf "$PREFIX"
  mkdir -p "$PREFIX/backup"
  cat >"$PREFIX/http.conf" <<CONF
include cpath.conf;
lua_package_path '$ROOT/dev/matrix/?.lua;;';
init_worker_by_lua_block {
  require("matrix").start {
    metadata_broker_list = "$BOOTSTRAP",
    topics = { "matrix" },
    message_timeout_ms = 60000,
    queue_buffering_max_ms = 50,
    queue_path = "$LKFK_SHM",
    backpath = "$PREFIX/backup/",
    $(for option in "$@"; do printf '%s,' "$option"; done)
  }
}
server {
  include listen.conf;
  location = /log { content_by_lua_block { require("matrix").log() } }
  location = /log_sizes { content_by_lua_block { require("matrix").log_sizes() } }
  location = /flush { content_by_lua_block { require("matrix").flush() } }
}
CONF
  dev/nginx.sh start "$BROKER"
  URL=http://127.0.0.1:$(sed -n 's/^PORT=//p' "$PREFIX/env")
}

stop_nginx() {
  dev/nginx.sh stop "$BROKER"
}

# Sets CONNECTION to what nginx says of the first connection, and PRODUCE to its version. Log lines come
# a moment after what they tell of.
find_connection() {
  local patience=60
  until CONNECTION=$(grep -m 1 ' connected (.*Produce v' "$PREFIX/error.log"); do
    if (( patience-- == 0 )); then die 'nginx says nothing of a connection'; fi
    sleep 0.05
  done
  PRODUCE=${CONNECTION##*Produce v}
  PRODUCE=${PRODUCE%%[!0-9]*}
}

get() {
  curl --silent --show-error --fail-with-body --max-time 90 "$URL$1" ||
    die "$1; nginx says: $(tail -n 5 "$PREFIX/error.log")"
}

# timed NAME COMMAND...: its seconds are the result NAME.
timed() {
  local begun=$EPOCHREALTIME
  "${@:2}"
  tell "$1" "$(since "$begun")"
}

tell() {
  printf '%s=%s\n' "$1" "$2" >>"$RESULT"
}

# --- All of them ---

# row VERSION: what was found out; what was not is missing.
row() {
  local produce='' round_trip='' restart='' duplicates='' unasked='' rules='' codecs='' sasl='' total='' key value
  while IFS='=' read -r key value; do
    printf -v "$key" %s "$value"
  done < <(cat "$STAGE/matrix/$1" 2>/dev/null)
  printf '  %-10s%8s%12s%12s%12s%10s%8s%10s%10s%10s' "$1" "${produce:+v$produce}" "$(seconds "$round_trip")" \
    "$(seconds "$restart")" "${duplicates:--}" "$(seconds "$unasked")" "${rules:--}" "$(seconds "$codecs")" \
    "$(seconds "$sasl")" "$(seconds "$total")"
}

seconds() {
  if [[ -n $1 ]]; then printf '%.1f s' "$1"; else printf %s -; fi
}

if [[ ${1:-} == --one ]]; then
  stage_join
  check_version "$2"
  exit
fi

dev/install.sh
stage_begin matrix
if [[ -z ${LKFK_CPATH:-} ]]; then step 'lkfk.so' cargo build --release; fi
step 'the model' cargo build --no-default-features --example sequence_rules
export RULES=${CARGO_TARGET_DIR:-$ROOT/target}/debug/examples/sequence_rules
stage_library
wanted=${*:-$(cut -d ' ' -f 1 <<<"$VERSIONS")}
for version in $wanted; do
  grep -q "^$version " <<<"$VERSIONS" || die "no $version among $(cut -d ' ' -f 1 <<<"$VERSIONS" | xargs)"
done
failed=0
printf '  %-10s%8s%12s%12s%12s%10s%8s%10s%10s%10s\n' \
  Kafka Produce 'round trip' restart duplicates unasked rules codecs SASL all
for version in $wanted; do
  if [[ -t 1 ]]; then printf '%s  %s ...%s\r' "$DIM" "$version" "$PLAIN"; fi
  spawn "$STAGE/log/$version" dev/matrix.sh --one "$version"
  if attend; then
    printf '%s\n' "$(row "$version")"
  else
    failed=$(( failed + 1 ))
    printf '%s  %sFAILED%s\n' "$(row "$version")" "$RED" "$PLAIN"
    tail -n 20 "$STAGE/log/$version" | sed 's/^/    /'
  fi
done
if (( failed )); then die "$failed of $(wc -w <<<"$wanted") versions failed"; fi
echo "All messages arrived, from $(wc -w <<<"$wanted") versions of Kafka."
