#!/usr/bin/env bash
# Runs specs inside a real nginx: spec.sh [-p] [-f NAME-PATTERN] [FILE...]; without files all of spec/.
# With -p only those whose faults are known and not mended yet, which are listed otherwise.
# They test the nginx LKFK_NGINX, and run under the resty LKFK_RESTY; without these variables under what is installed,
# and where no resty works in a single-process nginx of ours. What they start belongs to this run's stage. The last
# line is "N passed, N failed". LKFK_CPATH, when set, is the directory of the lkfk.so to test; else it is built.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

# Sets RESTY; fails where there is none.
find_resty() {
  RESTY=${LKFK_RESTY:-resty}
  if "$RESTY" -e 'os.exit(0)' >/dev/null 2>&1; then return; fi
  [[ -z ${LKFK_RESTY:-} ]] || die "LKFK_RESTY: $RESTY does not work: $("$RESTY" -e 'os.exit(0)' 2>&1 | tail -n 1)"
  return 1
}

# Where busted and what it needs are installed: OpenResty's LuaJIT looks in directories of its own alone.
export_lua_paths() {
  local dir
  export SPEC_LUA_PATH='' SPEC_LUA_CPATH=''
  for dir in /usr/local/share/lua/5.1 /usr/share/lua/5.1; do SPEC_LUA_PATH+=";$dir/?.lua;$dir/?/init.lua"; done
  for dir in /usr/local/lib/lua/5.1 /usr/lib/*/lua/5.1; do SPEC_LUA_CPATH+=";$dir/?.so"; done
}

write_runner() {
  local name
  mkdir -p "$STAGE/nginx/runner"
  {
    echo 'master_process off;'
    while read -r name; do
      if [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then echo "env $name;"; fi
    done < <(compgen -e)
  } >"$STAGE/nginx/runner/main.conf"
  cat >"$STAGE/nginx/runner/http.conf" <<'CONF'
lua_socket_log_errors off;
init_worker_by_lua_block {
  ngx.timer.at(0, function()
    local runner, err = loadfile(os.getenv("LKFK_ROOT") .. "/dev/spec.lua")
    local ok, exit = nil, os.exit
    if runner then ok, err = xpcall(runner, debug.traceback) end
    if not ok then
      io.stdout:write(err, "\n")
      exit(1)
    end
  end)
}
CONF
}

filter=''
while getopts pf: option; do
  case $option in
    p) export SPEC_PENDING=1 ;;
    f) filter=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $(( OPTIND - 1 ))
if (( $# == 0 )); then set -- spec/*_spec.lua; fi
for file in "$@"; do [[ -f $file ]] || die "no file $file"; done

stage_begin spec
if [[ -z ${LKFK_CPATH:-} ]]; then
  dev/cargo.sh
  cargo build --quiet --release
fi
stage_library
export LKFK_ROOT=$ROOT SPEC_RESULT=$STAGE/spec.result SPEC_FILTER=$filter SPEC_FILES
SPEC_FILES=$(printf '%s\n' "$@")
rm -f "$SPEC_RESULT"
export_lua_paths
if find_resty; then
  spawn - "$RESTY" -c 512 --errlog-level error dev/spec.lua
else
  write_runner
  spawn - dev/nginx.sh run runner
fi
code=0
attend || code=$?
if [[ ! -f $SPEC_RESULT ]]; then
  tail -n 20 "$STAGE/nginx/runner/error.log" 2>/dev/null || true
  echo "the runner ended early, with code $code"
  echo '0 passed, 1 failed' >"$SPEC_RESULT"
  code=1
fi
# test.sh adds it up itself.
if [[ -n ${WATCHDOG:-} ]]; then cat "$SPEC_RESULT"; fi
exit "$code"
