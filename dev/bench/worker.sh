#!/usr/bin/env bash
# A broker and an nginx worker that are measured. Source it after stage.sh.
# shellcheck disable=SC2034 # what is set here is for who sources it

# open_broker VERSION TOPIC PARTITIONS [OPTION...]: a fresh broker, with its log in memory where that has room.
# "default" is the version in kafka/pom.xml; the options are those of kafka.sh start. Sets BOOTSTRAP, BROKER (its pid),
# VERSION.
open_broker() {
  local version=$1
  if [[ $version == default ]]; then version=; fi
  dev/kafka.sh start bench ${version:+"$version"} "log.dirs=$LKFK_SHM/kafka" "${@:4}"
  dev/kafka.sh topic bench "$2" "$3"
  BOOTSTRAP=$(from_env kafka/bench BOOTSTRAP)
  BROKER=$(from_env kafka/bench PID)
  VERSION=$(from_env kafka/bench VERSION)
}

close_broker() {
  dev/kafka.sh stop bench
  rm -rf "$STAGE/kafka/bench" "$LKFK_SHM/kafka"
}

# open_worker INIT LOCATIONS [NAME]: an nginx with one worker that runs the Lua code INIT when it starts, with the lkfk.so
# of LKFK_CPATH. Sets URL, WORKER (the worker's pid), SOFTWARE.
open_worker() {
  local name=${3:-bench}
  local prefix=$STAGE/nginx/$name
  mkdir -p "$prefix"
  printf '%s\n' 'worker_processes 1;' 'env LKFK_SHM;' 'env LKFK_STAGE;' >"$prefix/main.conf"
  cat >"$prefix/http.conf" <<CONF
include cpath.conf;
lua_package_path '$ROOT/dev/bench/?.lua;;';
lua_shared_dict kfk 1m;
keepalive_requests 1000000000;
init_worker_by_lua_block { $1 }
server {
  include listen.conf;
  location = /worker { content_by_lua_file "$ROOT/dev/bench/worker.lua"; }
  $2
}
CONF
  dev/nginx.sh start "$name"
  URL=http://127.0.0.1:$(from_env "nginx/$name" PORT)
  { read -r WORKER; read -r SOFTWARE; } < <(get /worker)
}

# close_worker NAME
close_worker() {
  dev/nginx.sh stop "$1"
  rm -rf "$STAGE/nginx/$1"
}

# get PATH: the answer of the worker.
get() {
  curl --silent --show-error --fail --max-time 300 "$URL$1"
}

from_env() {
  sed -n "s/^$2=//p" "$STAGE/$1/env"
}

# read_run FILE: what pace.lua answered. Sets CALL, CALL_MEDIAN, THREAD, PROCESS (nanoseconds a message),
# ACKED (messages a second).
read_run() {
  local key value
  while IFS='=' read -r key value; do
    case $key in
      call) CALL=$value ;;
      call_median) CALL_MEDIAN=$value ;;
      thread) THREAD=$value ;;
      process) PROCESS=$value ;;
      rate) ACKED=$value ;;
    esac
  done <"$1"
}

# --- Numbers ---

calculate() {
  awk "BEGIN { print ($1) }"
}

# thousands NUMBER: with commas.
thousands() {
  printf '%.0f' "$1" | sed -E ':a;s/([0-9])([0-9]{3})($|,)/\1,\2\3/;ta'
}

# percent SHARE
percent() {
  awk -v share="$1" 'BEGIN { printf "%.0f %%", share * 100 }'
}

# --- Lines ---

# progress [TEXT]: on a terminal, in place of the one before.
progress() {
  if [[ -t 1 ]]; then printf '\r%s%s%s\e[K' "$DIM" "${1:-}" "$PLAIN"; fi
}
