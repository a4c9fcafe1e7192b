#!/usr/bin/env bash
# Everything goes wrong at once: three real brokers behind a proxy that breaks connections, a real nginx with
# several workers that log RATE messages a second, and faults drawn from SEED for MINUTES. Afterwards two
# independent readers say what is in Kafka, and a judge compares that with what log() took.
#   chaos.sh [--short]          --short: about a minute in all, for every day
# Options are in the environment:
#   MINUTES=10 SEED=random RATE=5000 WORKERS=3
#   FAULTS='kill lose ...'      only these; the names are in chaos/schedule.sh
#   KILLS=20 a minute           workers that are killed, in all
#   IDEMPOTENCE=1               enable_idempotence, and duplicated or reordered messages are a failure
#   REPLAY=1                    what went to the backup is to end in Kafka; 0: it stays where it is
#   OUTAGE=120                  seconds that all brokers are down at once, and most that any other fault lasts; the
#                               default is that or a fifth of the run
#   MESSAGE_TIMEOUT=20000       message_timeout_ms: what is older goes to the backup
#   CONF='key = value, ...'     more configuration, in Lua
#   QUIET=20                    seconds before the first fault, to compare times with; their 99th percentile is that of
#                               100 answers a second
#   DRAIN=90                    seconds for queues and backup to become empty when all is well again
#   PRIORITY=0                  1: nginx's event loops and the load come before all else, as where brokers have machines
#                               of their own, so that what log() and /ping take is theirs. Takes root
#   KEEP=1                      the ledger, the logs and what was read stay in target/chaos/SEED
#   LKFK_CPATH                  the directory of the lkfk.so to test; else it is built
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/machine.sh
source dev/chaos/schedule.sh
source dev/chaos/faults.sh

NODES=3
TOPICS='chaos-0 chaos-1 chaos-2'
PARTITIONS=4
RATE=${RATE:-5000}
WORKERS=${WORKERS:-3}
CONSOLE_CONSUMER=org.apache.kafka.tools.consumer.ConsoleConsumer

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# --- The run's parts ---

read_options() {
  local fifth
  SEED=${SEED:-$(( SRANDOM % 1000000 ))}
  [[ $SEED =~ ^[0-9]{1,15}$ ]] || die "SEED takes a number: $SEED"
  if [[ -n $SHORT ]]; then
    QUIET=${QUIET:-4} SECONDS_OF_LOAD=32 OUTAGE=${OUTAGE:-6}
    KILLS=${KILLS:-15} MESSAGE_TIMEOUT=${MESSAGE_TIMEOUT:-6000}
  else
    MINUTES=${MINUTES:-10}
    [[ $MINUTES =~ ^[1-9][0-9]*$ ]] || die "MINUTES takes a number: $MINUTES"
    fifth=$(( MINUTES * 12 ))
    QUIET=${QUIET:-20} SECONDS_OF_LOAD=$(( MINUTES * 60 )) OUTAGE=${OUTAGE:-$(( fifth < 120 ? fifth : 120 ))}
    KILLS=${KILLS:-$(( MINUTES * 20 ))} MESSAGE_TIMEOUT=${MESSAGE_TIMEOUT:-20000}
  fi
  DRAIN=${DRAIN:-90} IDEMPOTENCE=${IDEMPOTENCE:-1} REPLAY=${REPLAY:-1} PRIORITY=${PRIORITY:-0}
  [[ $QUIET =~ ^[1-9][0-9]*$ ]] || die "QUIET takes seconds: $QUIET"
  if [[ ! $OUTAGE =~ ^[0-9]+$ ]] || (( OUTAGE < 3 || OUTAGE >= SECONDS_OF_LOAD - QUIET )); then
    die "OUTAGE takes seconds, from 3 to what the run has: $OUTAGE"
  fi
  AS_LOAD=()
  if (( PRIORITY )); then
    AS_LOAD=(chrt --fifo 1)
    "${AS_LOAD[@]}" true 2>/dev/null || die 'PRIORITY takes the right to use real-time priorities: run as root'
  fi
  check_faults
}

check_faults() {
  local name
  for name in ${FAULTS:+${FAULTS//,/ }}; do
    [[ " ${CLUSTER_FAULTS//$'\n'/ } $NGINX_FAULTS $WORKER_FAULTS " == *" $name "* ]] ||
      die "no fault $name; there are: ${CLUSTER_FAULTS//$'\n'/ } $NGINX_FAULTS $WORKER_FAULTS"
  done
}

build() {
  if [[ -z ${LKFK_CPATH:-} ]]; then step 'lkfk.so' cargo build --release; fi
  step 'proxy, load and judge' \
    cargo build --release --manifest-path dev/chaos/Cargo.toml --target-dir "$ROOT/target/chaos"
  TOOLS=$ROOT/target/chaos/release/chaos
  step 'Kafka, from Maven' dev/kafka.sh fetch
  stage_library
}

start_cluster() {
  local node ports=() wires=() topic
  for (( node = 1; node <= NODES; node++ )); do free_port; ports+=("$PORT"); done
  free_port
  CONTROL=$PORT
  step "$NODES brokers" dev/kafka.sh cluster chaos "${ports[@]}"
  for (( node = 1; node <= NODES; node++ )); do
    wires+=("${ports[node - 1]}=$(env_value "kafka/chaos-$node" CLIENT)")
  done
  spawn "$STAGE/log/proxy" "$TOOLS" proxy "$CONTROL" "${wires[@]}"
  PROXY=$SPAWNED
  until listening "$CONTROL"; do
    running "$PROXY" || die "the proxy did not start: $(cat "$STAGE/log/proxy")"
    sleep 0.02
  done
  for topic in $TOPICS; do dev/kafka.sh topic chaos-1 "$topic" "$PARTITIONS"; done
  BROKERS=$(printf '"127.0.0.1:%s",' "${ports[@]}")
}

env_value() {
  sed -n "s/^$2=//p" "$STAGE/$1/env"
}

# A small file system of its own for the backup, in a mount namespace that nginx is started in and that goes
# with its last process: in memory, or, to be frozen, ext4 on a file there. Sets BACKUP, as this script sees it. It
# has room for an outage and no more than it takes: to fill it and to empty it is work for the kernel, which the event
# loops feel.
mount_backup() {
  local nginx kind='' size=$(( 64 + OUTAGE * RATE / 1000 )) image=$LKFK_SHM/backup.ext4
  BACKUP=$PREFIX/backup
  mkdir -p "$BACKUP"
  if (( EUID != 0 )) || ! unshare --mount true 2>/dev/null; then
    leave_out disk-full 'a file system of its own takes root and mount namespaces'
    leave_out disk-hang 'it takes the same'
  elif is_wanted disk-hang && ! make_image "$image" "$size" 2>/dev/null; then
    leave_out disk-hang 'to freeze a file system takes ext4 and loop devices'
  fi
  if is_wanted disk-full; then kind=tmpfs; fi
  if is_wanted disk-hang; then kind=ext4; fi
  if [[ -z $kind ]]; then return; fi
  # shellcheck disable=SC2016 # for the inner shell
  spawn "$STAGE/log/mount" unshare --mount sh -c '
    case $2 in
      tmpfs) mount -t tmpfs -o "size=$3m,mode=700" tmpfs "$1" ;;
      ext4) mount -o loop "$4" "$1" && chmod 700 "$1" && rmdir "$1/lost+found" && rm "$4" ;;
    esac && touch "$1/.mounted" && exec sleep infinity' sh "$BACKUP" "$kind" "$size" "$image"
  BACKUP=/proc/$SPAWNED/root$BACKUP
  until [[ -e $BACKUP/.mounted ]]; do
    running "$SPAWNED" || die "no file system for the backup: $(cat "$STAGE/log/mount")"
    sleep 0.02
  done
  rm "$BACKUP/.mounted"
  # For an upgrade nginx starts itself by the path that it was started by.
  nginx=$(PATH=$PATH:/usr/sbin:/usr/local/openresty/nginx/sbin command -v "${LKFK_NGINX:-nginx}" || command -v openresty)
  printf '#!/bin/sh\nexec nsenter --mount=/proc/%s/ns/mnt -- %q "$@"\n' "$SPAWNED" "$nginx" >"$CHAOS/nginx"
  chmod 755 "$CHAOS/nginx"
  export LKFK_NGINX=$CHAOS/nginx
}

is_wanted() {
  [[ " $(wanted "$CLUSTER_FAULTS")" == *" $1 "* ]]
}

# leave_out FAULT WHY: says so when it was wanted.
leave_out() {
  if is_wanted "$1"; then echo "  $1 is left out: $2"; fi
  CLUSTER_FAULTS=${CLUSTER_FAULTS/$1/}
}

# make_image FILE MEGABYTES: with an ext4 that can be mounted here.
make_image() {
  truncate -s "$2M" "$1" && mkfs.ext4 -q -m 0 "$1" &&
    unshare --mount mount -o loop "$1" "$BACKUP"
}

configure_nginx() {
  local topic idempotence=false replay=false topics='' first=''
  if (( PRIORITY )); then first='require("first")()'; fi
  if (( IDEMPOTENCE )); then idempotence=true; fi
  if (( REPLAY )); then replay=true; fi
  for topic in $TOPICS; do topics+="'$topic', "; done
  free_port
  URL=http://127.0.0.1:$PORT LOAD_PORT=$PORT
  echo "worker_processes $WORKERS;" >"$PREFIX/main.conf"
  # The load has a socket for each worker, so that all of them are busy.
  cat >"$PREFIX/http.conf" <<CONF
include cpath.conf;
lua_package_path '$ROOT/dev/chaos/?.lua;$ROOT/dev/bench/?.lua;;';
lua_shared_dict kfk 1m;
keepalive_requests 1000000;
init_worker_by_lua_block {
  require("chaos").start("$RUN", { $topics }, {
    metadata_broker_list = { $BROKERS },
    request_required_acks = -1,
    enable_idempotence = $idempotence,
    replay = $replay,
    replay_rate = 10000,
    message_timeout_ms = $MESSAGE_TIMEOUT,
    queue_buffering_max_ms = 100,
    queue_path = "$QUEUES",
    backpath = "$PREFIX/backup/",
    ${CONF:-}
  })
  $first
}
server { include listen.conf; }
server {
  listen 127.0.0.1:$LOAD_PORT reuseport;
  location = /log { content_by_lua_block { require("chaos").log() } }
  location = /ping { content_by_lua_block { require("chaos").ping() } }
  location = /waiting { content_by_lua_block { require("chaos").waiting() } }
}
CONF
}

# An nginx without lkfk, which nothing happens to: what its /ping takes is the machine's doing.
start_control() {
  local prefix=$STAGE/nginx/control first=''
  if (( PRIORITY )); then first='init_worker_by_lua_block { require("first")() }'; fi
  mkdir -p "$prefix"
  cat >"$prefix/http.conf" <<CONF
lua_package_path '$ROOT/dev/chaos/?.lua;;';
keepalive_requests 1000000;
$first
server {
  include listen.conf;
  location = /ping { content_by_lua_block { ngx.header.content_length = 10; ngx.print("control 0\\n") } }
}
CONF
  dev/nginx.sh start control
}

queue_files() {
  # A queue may lie with the backup, too.
  find "$QUEUES" "$BACKUP" -type f -path '*/lkfk-*/*' -name '*.queue*' -printf '%f\n'
}

# --- The run ---

start_load() {
  spawn "$STAGE/log/watch" "$TOOLS" watch "$QUEUES/lkfk-$EUID" "$CHAOS/watched"
  now_ms
  echo "$NOW" >"$CHAOS/begun"
  : >"$CHAOS/events"
  : >"$CHAOS/kills"
  spawn "$STAGE/log/load" "${AS_LOAD[@]}" "$TOOLS" load "$LOAD_PORT" "$(env_value nginx/control PORT)" \
    "$RATE" "$QUIET" "$CHAOS"
  LOAD=$SPAWNED
  # shellcheck disable=SC2086 # words
  spawn "$STAGE/log/keep" "$TOOLS" keep "$BACKUP" "$CHAOS/removed" $TOPICS
  KEEPER=$SPAWNED
}

# Plays all streams to their end, and shows what happens meanwhile.
run_faults() {
  local -A players=()
  local stream begun shown=0 lines left=1 end told
  read -r begun <"$CHAOS/begun"
  told=$begun
  for stream in cluster nginx workers; do
    spawn "$STAGE/log/play-$stream" dev/chaos.sh --play "$stream"
    players[$stream]=$SPAWNED
  done
  end=$(( begun + SECONDS_OF_LOAD * 1000 ))
  while now_ms; (( left > 0 || NOW < end )); do
    left=0
    for stream in "${!players[@]}"; do
      if running "${players[$stream]}"; then
        left=$(( left + 1 ))
      elif [[ ! -e $CHAOS/played.$stream ]]; then
        die "$stream: $(tail -n 5 "$STAGE/log/play-$stream")"
      fi
    done
    running "$LOAD" || die "the load ended: $(cat "$STAGE/log/load")"
    mapfile -t -s "$shown" lines <"$CHAOS/events"
    shown=$(( shown + ${#lines[@]} ))
    if (( ${#lines[@]} )); then show_events "$begun" "${lines[@]}"; fi
    if [[ -t 1 ]]; then
      printf '\r%s  %s%s\e[K' "$DIM" "$(state_line "$begun")" "$PLAIN"
    elif (( NOW - told > 30000 )); then
      told=$NOW
      state_line "$begun"
    fi
    sleep 1
  done
  if [[ -t 1 ]]; then printf '\r\e[K'; fi
  state_line "$begun"
}

show_events() {
  local begun=$1 ms words
  shift
  if [[ -t 1 ]]; then printf '\r\e[K'; fi
  while read -r ms words; do
    case $words in
      fault*) words=${words#fault } ;;
      back*) read -r _ words _ <<<"$words"; words="the end of $words" ;;
    esac
    printf '  %7.1f s  %s\n' "$(( (ms - begun) / 100 ))e-1" "$words"
  done < <(printf '%s\n' "$@")
}

state_line() {
  local taken=0 refused=0 unanswered=0
  { read -r taken refused unanswered <"$CHAOS/state"; } 2>/dev/null || true
  now_ms
  printf '%5d s  taken %s, refused %s, unanswered %s; workers killed %s, other faults %s\n' \
    $(( (NOW - $1) / 1000 )) "$taken" "$refused" "$unanswered" \
    "$(wc -l <"$CHAOS/kills")" "$(grep -c ' fault ' "$CHAOS/events" || true)"
}

stop_load() {
  local taken
  halt "$LOAD" TERM 20 || die 'the load did not end'
  read -r taken _ <"$CHAOS/state"
  if (( taken < RATE * SECONDS_OF_LOAD / 3 )); then complain "only $taken messages were taken"; fi
  [[ -s $CHAOS/times ]] || die "the load: $(cat "$STAGE/log/load")"
}

# --- Afterwards ---

heal() {
  proxy 'all pass'
  start_brokers
}

# backlog: names of the backup files that are to be sent again.
backlog() {
  if (( REPLAY )); then find "$BACKUP" -maxdepth 1 -type f ! -name '~*' ! -name '*~bad' -printf '%f\n'; fi
}

# drain: until no worker has a message in a queue, nor a dead one has a queue, nor the backup a line to send.
drain() {
  local deadline=$(( SECONDS + DRAIN )) pid count files living lines
  local -A left
  while :; do
    left=()
    mapfile -t living < <(workers)
    for _ in {1..60}; do
      read -r pid count < <(curl -sS --max-time 5 "$URL/waiting") || continue
      left[$pid]=$count
      if (( ${#left[@]} >= ${#living[@]} )); then break; fi
    done
    mapfile -t files < <(queue_files)
    mapfile -t lines < <(backlog)
    count=0
    for pid in "${!left[@]}"; do count=$(( count + left[$pid] )); done
    # More than WORKERS may live: a master that was asked to take over again has what it had, and new ones.
    if (( count == 0 && ${#left[@]} == ${#living[@]} && ${#files[@]} == ${#living[@]} &&
      ${#living[@]} >= WORKERS && ${#lines[@]} == 0 )); then return; fi
    if (( SECONDS > deadline )); then
      complain "not drained after $DRAIN s: ${#files[@]} queue files, $count messages waiting in ${#left[@]} workers," \
        "in the backup ${lines[*]}"
      return
    fi
    sleep 0.2
  done
}

# Nothing may be left of a stop that had all the time it needed.
stop_at_the_end() {
  local files
  stop_nginx QUIT
  mapfile -t files < <(queue_files)
  if (( ${#files[@]} )); then complain "left after the end: ${files[*]}"; fi
}

complain() {
  FAILED=1
  printf '  %s%s%s\n' "$RED" "$*" "$PLAIN"
}

# records TOPIC: that its partitions hold.
records() {
  local partition queries=()
  for (( partition = 0; partition < PARTITIONS; partition++ )); do queries+=(-t "$1:$partition:-1"); done
  kcat -b "$(env_value kafka/chaos-1 BOOTSTRAP)" -Q "${queries[@]}" | awk '{ sum += $NF } END { print sum + 0 }'
}

# read_topics kcat|java: prints lines as the judge takes them.
read_topics() {
  local topic count
  for topic in $TOPICS; do
    if [[ $1 == kcat ]]; then
      dev/kafka.sh consume chaos-1 "$topic" '%t\t%p\t%o\t%k\t%s\n'
      continue
    fi
    count=$(records "$topic")
    if (( count == 0 )); then continue; fi
    dev/kafka.sh tool chaos-1 "$CONSOLE_CONSUMER" --topic "$topic" --from-beginning \
      --max-messages "$count" --timeout-ms 30000 --formatter-property print.partition=true \
      --formatter-property print.offset=true --formatter-property print.key=true |
      sed "s/^Partition:\([0-9]*\)\tOffset:\([0-9]*\)/$topic\t\1\t\2/"
  done
}

# repeats: copies that replay may have made: a chunk of 4,096 lines for each process that ended, however it did.
repeats() {
  local faults
  if (( REPLAY == 0 )); then echo off; return; fi
  faults=$(grep -cE " fault (${NGINX_FAULTS// /|}) " "$CHAOS/events" || true)
  echo $(( ($(wc -l <"$CHAOS/kills") + faults * 2 * WORKERS) * 4096 ))
}

judge() {
  local topic sum=0 reader readers=() code=0 strict=lenient
  halt "$KEEPER" TERM 20 || complain "$(tail -n 1 "$STAGE/log/keep")"
  for topic in $TOPICS; do sum=$(( sum + $(records "$topic") )); done
  if (( IDEMPOTENCE )); then strict=strict; fi
  for reader in kcat java; do
    mkfifo "$CHAOS/$reader"
    spawn "$STAGE/log/read-$reader" dev/chaos.sh --read "$reader"
    readers+=("$SPAWNED")
  done
  spawn "$CHAOS/verdict" "$TOOLS" judge "$RUN" "$CHAOS/ledger" "$BACKUP" "$CHAOS/removed" "$sum" "$strict" \
    "$(repeats)" "kcat=$CHAOS/kcat" "java=$CHAOS/java"
  attend || code=$?
  cat "$CHAOS/verdict"
  for reader in "${readers[@]}"; do ended "$reader" 10 || true; done
  for reader in kcat java; do
    [[ -e $CHAOS/read.$reader ]] || complain "$reader: $(tail -n 5 "$STAGE/log/read-$reader")"
  done
  if (( code )); then FAILED=1; fi
}

# --- Figures ---

waits_for() {
  if (( PRIORITY )); then
    printf ',\nfor which it comes before the brokers and the proxy'
  else
    printf ',\nwhich it shares with three brokers, the load and the proxy'
  fi
}

figures() {
  local died
  died=$(grep -o 'exited on signal [0-9]*' "$PREFIX/error.log" | grep -vc 'signal 9$' || true)
  if (( died )); then complain "$died workers died by a signal that was not ours; see $PREFIX/error.log"; fi
  if grep -qaE 'driver fault|panicked at' "$PREFIX/error.log" "$PREFIX/stderr.log"; then
    complain "a panic: $(grep -ahE -m 2 'driver fault|panicked at' "$PREFIX/error.log" "$PREFIX/stderr.log")"
  fi
  while read -r _ words; do complain "did not end: $words"; done < <(grep ' stuck ' "$CHAOS/events" || true)
  "$TOOLS" figures "$CHAOS"
  cat <<TEXT
  the proxy, by broker: $(proxy status)
  lkfk, in nginx's log, most frequent first:
$(lkfk_lines)

log(): the wall clock around each call, in the workers. While a worker is new (NEW in chaos/src/load.rs) LuaJIT
compiles what it runs, so that has lines of its own. /ping: on two connections of its own, and on two to an nginx
without lkfk that nothing happens to. All also measure how long a worker waits for a processor$(waits_for).
$(machine)
TEXT
}

# What the driver said, numbers taken out.
lkfk_lines() {
  sed -n 's/.*\[\(warn\|error\)\].*\[lkfk\] \([^,]*\).*/\1: \2/p' "$PREFIX/error.log" |
    sed -E 's/ \([0-9]+ more.*//; s/127\.0\.0\.1:[0-9]+/BROKER/g; s/[0-9]+/N/g' | cut -c 1-100 |
    sort | uniq -c | sort -rn | sed -n '1,12p'
}

# --- ---

case ${1:-} in
  --play)
    stage_join
    play "$2"
    touch "$CHAOS/played.$2"
    exit
    ;;
  --read)
    stage_join
    if [[ -n ${KEEP:-} ]]; then
      read_topics "$2" | tee "$CHAOS/$2.records" >"$CHAOS/$2"
    else
      read_topics "$2" >"$CHAOS/$2"
    fi
    touch "$CHAOS/read.$2"
    exit
    ;;
  --short) SHORT=1 ;;
  '') SHORT='' ;;
  *) usage ;;
esac

read_options
dev/install.sh
stage_begin chaos
CHAOS=$STAGE/chaos PREFIX=$STAGE/nginx/chaos FAILED=0 RUN=run$SEED
# Queues of this run only: the stage may be that of several.
QUEUES=$LKFK_SHM/chaos
export CHAOS PREFIX NODES TOPICS PARTITIONS
mkdir -p "$CHAOS" "$PREFIX" "$QUEUES"
# shellcheck disable=SC2016 # the variables stand outside of those quotes
echo "To repeat: SEED=$SEED${MINUTES:+ MINUTES=$MINUTES} KILLS=$KILLS RATE=$RATE WORKERS=$WORKERS \
IDEMPOTENCE=$IDEMPOTENCE REPLAY=$REPLAY QUIET=$QUIET OUTAGE=$OUTAGE PRIORITY=$PRIORITY MESSAGE_TIMEOUT=$MESSAGE_TIMEOUT${FAULTS:+ FAULTS='$FAULTS'}${CONF:+ CONF='$CONF'} \
dev/chaos.sh${SHORT:+ --short}"
build
mount_backup
write_schedule "$CHAOS" "$QUIET" "$SECONDS_OF_LOAD" "$KILLS" "$OUTAGE"
start_cluster
configure_nginx
export BACKUP CONTROL
start_control
start_nginx
curl -sSf --max-time 10 "$URL/ping" >/dev/null || die "lkfk does not start: $(grep -m 5 '\[error\]' "$PREFIX/error.log")"
echo "  $(wc -l <"$CHAOS/schedule.workers") workers to be killed, and, milliseconds from now:"
sort -n "$CHAOS/schedule.cluster" "$CHAOS/schedule.nginx" | sed 's/^/    /'
start_load
run_faults
stop_load
heal
drain
stop_at_the_end
judge
figures
if [[ -n ${KEEP:-} ]]; then
  rm -f "$CHAOS"/kcat "$CHAOS"/java
  mkdir -p "target/chaos/$SEED"
  cp -r "$CHAOS" "$STAGE/log" "$PREFIX/error.log" "$BACKUP" "target/chaos/$SEED"
fi
if (( FAILED )); then die "not all promises were kept; the run's files are in $STAGE"; fi
