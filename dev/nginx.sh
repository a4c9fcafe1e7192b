#!/usr/bin/env bash
# An nginx of the stage, in its own prefix $STAGE/nginx/NAME on 127.0.0.1. The caller puts there
# main.conf and http.conf, the contents of those two levels; `include listen.conf;` in a server
# block gives it the port. http.conf finds lkfk.so by `include cpath.conf;`.
#   start NAME            returns when nginx listens; $STAGE/nginx/NAME/env then holds PORT, PID,
#                         PREFIX
#   stop NAME [SECONDS]   a graceful stop (SIGQUIT); when SECONDS (15) are over, a kill and a
#                         failure
#   run NAME              in the foreground, without listening
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# Lua is a module on Debian, built in with OpenResty. The kit must come first.
load_modules() {
  local line modules file
  line=$("$1" -V 2>&1)
  if [[ $line == *--add-module=*ngx_lua* ]]; then return; fi
  modules=$(tr ' ' '\n' <<<"$line" | sed -n 's/^--modules-path=//p')
  for file in ndk_http_module.so ngx_http_lua_module.so; do
    if [[ -f $modules/$file ]]; then echo "load_module \"$modules/$file\";"; fi
  done
}

write_conf() {
  local nginx=$1 kind
  load_modules "$nginx"
  # Workers of a root's nginx would else be nobody, and could not read the checkout.
  if (( EUID == 0 )); then echo "user $(id -un) $(id -gn);"; fi
  echo 'daemon off;'
  echo "pid \"$PREFIX/nginx.pid\";"
  echo "error_log \"$PREFIX/error.log\" info;"
  echo "include \"$PREFIX/main.conf\";"
  echo 'events { worker_connections 512; }'
  echo 'http {'
  echo '  access_log off;'
  for kind in client_body proxy fastcgi uwsgi scgi; do
    echo "  ${kind}_temp_path \"$PREFIX/temp/$kind\";"
  done
  echo "  include \"$PREFIX/http.conf\";"
  echo '}'
}

prepare() {
  local program
  PREFIX=$STAGE/nginx/$1
  [[ -f $PREFIX/http.conf ]] || die "no $PREFIX/http.conf"
  program=$(find_nginx)
  mkdir -p "$PREFIX/temp"
  touch "$PREFIX/main.conf"
  echo "lua_package_cpath '${LKFK_CPATH:-}/?.so;;';" >"$PREFIX/cpath.conf"
  write_conf "$program" >"$PREFIX/nginx.conf"
  COMMAND=("$program" -p "$PREFIX" -c "$PREFIX/nginx.conf" -e "$PREFIX/error.log")
}

start() {
  local patience=500
  prepare "$1"
  if [[ -f $PREFIX/env ]]; then PORT=$(value PORT); else free_port; fi
  echo "listen 127.0.0.1:$PORT;" >"$PREFIX/listen.conf"
  spawn "$PREFIX/stderr.log" "${COMMAND[@]}"
  printf '%s\n' "PORT=$PORT" "PID=$SPAWNED" "PREFIX=$PREFIX" >"$PREFIX/env"
  until listening "$PORT"; do
    if ! running "$SPAWNED" || (( patience-- == 0 )); then
      halt "$SPAWNED" KILL 1 || true
      die "nginx $1 did not start: $(tail -n 15 "$PREFIX/stderr.log")"
    fi
    sleep 0.02
  done
}

stop() {
  local pid
  PREFIX=$STAGE/nginx/$1
  pid=$(value PID)
  halt "$pid" QUIT "$2" || die "nginx $1 did not stop within $2 s and was killed"
}

value() {
  sed -n "s/^$1=//p" "$PREFIX/env"
}

(( $# >= 2 )) || usage
stage_join
case $1 in
  start) start "$2" ;;
  stop) stop "$2" "${3:-15}" ;;
  run) prepare "$2"; exec "${COMMAND[@]}" ;;
  *) usage ;;
esac
