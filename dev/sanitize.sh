#!/usr/bin/env bash
# Real nginx with lkfk under valgrind's memcheck and under AddressSanitizer, against a real Kafka:
# started, MESSAGES messages logged, reloaded, stopped with -QUIT and with -TERM, also with a broker
# that never answers, and REQUESTS requests with lua_code_cache off. Fails on every report with lkfk in
# it, on a message that is lost, on a worker that crashes or does not end.
#   sanitize.sh [memcheck] [address]     both when neither is named
# AddressSanitizer needs a nightly Rust; its runtime is GCC's libasan, which nginx gets by LD_PRELOAD.
# nginx and LuaJIT are not instrumented: what Rust code does with memory is looked at, whoever owns it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

MESSAGES=${MESSAGES:-10000}
REQUESTS=${REQUESTS:-500}
TARGET=x86_64-unknown-linux-gnu
# A worker under memcheck is some thirty times slower.
PATIENCE=90

# build_memcheck, build_address: set BUILT to the library.
build_memcheck() {
  cargo build --quiet
  BUILT=${CARGO_TARGET_DIR:-$ROOT/target}/debug/liblkfk.so
}

build_address() {
  # Not RUSTFLAGS of the host's: build scripts and macros are not sanitized.
  RUSTFLAGS=-Zsanitizer=address cargo +nightly build --quiet --target "$TARGET" \
    --target-dir "$ROOT/target/asan"
  BUILT=$ROOT/target/asan/$TARGET/debug/liblkfk.so
}

# wrap MODE: an nginx that runs under the tool.
wrap() {
  export LKFK_NGINX=$STAGE/nginx-$1
  {
    echo '#!/usr/bin/env bash'
    case $1 in
      memcheck)
        echo "exec valgrind --quiet --trace-children=yes --child-silent-after-fork=no \\"
        echo "  --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \\"
        echo "  --num-callers=40 --smc-check=all-non-file --read-var-info=no \\"
        printf '  --suppressions=%q --log-file=%q \\\n' "$ROOT/dev/sanitize/nginx.supp" "$REPORTS/report.%p"
        printf '  %q "$@"\n' "$NGINX"
        ;;
      address)
        # The tool itself splits its options at spaces and colons, except within quotation marks.
        printf 'export ASAN_OPTIONS=%q\n' \
          "log_path='$REPORTS/report':detect_leaks=1:exitcode=0:abort_on_error=0"
        printf 'export LSAN_OPTIONS=%q\n' \
          "suppressions='$ROOT/dev/sanitize/leaks.supp':print_suppressions=0"
        printf 'LD_PRELOAD=%q exec %q "$@"\n' "$(libasan)" "$NGINX"
        ;;
    esac
  } >"$LKFK_NGINX"
  chmod +x "$LKFK_NGINX"
}

libasan() {
  local file
  file=$(gcc -print-file-name=libasan.so)
  [[ -f $file ]] || die 'no libasan.so: AddressSanitizer comes with gcc'
  readlink -f "$file"
}

# open_nginx NAME TOPIC [LINE-OF-HTTP]
open_nginx() {
  local prefix=$STAGE/nginx/$1
  mkdir -p "$prefix" "$LKFK_SHM/$1"
  echo 'worker_processes 1;' >"$prefix/main.conf"
  cat >"$prefix/http.conf" <<CONF
include cpath.conf;
lua_shared_dict kfk 1m;
keepalive_requests 1000000;
${3:-}
init_worker_by_lua_block {
  local ok, err = require("lkfk.kfk").init {
    metadata_broker_list = { "$BOOTSTRAP" }, queue_path = "$LKFK_SHM/$1", backpath = "$prefix/backup",
    queue_buffering_max_kbytes = 8192, message_timeout_ms = 60000,
  }
  if not ok then ngx.log(ngx.ERR, err) end
}
server {
  include listen.conf;
  location = /log {
    content_by_lua_block {
      local kfk, collect = require "lkfk.kfk", collectgarbage
      for i = 1, tonumber(ngx.var.arg_count) do
        -- Memory of Lua's that is gone must not be looked at any more.
        local text = ("x"):rep(i % 700)
        assert(kfk.log("$2", i % 2 == 0 and text or nil, text))
        if i % 1000 == 0 then collect() end
      end
      for _, bad in ipairs { false, {}, ("x"):rep(3000000), "" } do kfk.log(bad, bad, bad) end
      ngx.print("logged")
    }
  }
  location = /flush { content_by_lua_block { ngx.print(tostring(require("lkfk.kfk").flush(60))) } }
}
CONF
  dev/nginx.sh start "$1"
  URL=http://127.0.0.1:$(sed -n 's/^PORT=//p' "$prefix/env")
  MASTER=$(sed -n 's/^PID=//p' "$prefix/env")
}

# get PATH EXPECTED: each answer must be that.
get() {
  local answer
  answer=$(curl --silent --show-error --fail --max-time 300 "$URL$1") || die "$1 was not answered"
  answer=${answer//"$2"/}
  [[ -z $answer ]] || die "$1 answered $answer"
}

# ends SIGNAL: the master, and so its workers, within PATIENCE.
ends() {
  halt "$MASTER" "$1" "$PATIENCE" || die "nginx did not end on -$1 within $PATIENCE s"
}

# kept NAME TOPIC COUNT: in Kafka or the backup.
kept() {
  local arrived backed_up=0 file=$STAGE/nginx/$1/backup/$2
  arrived=$(dev/kafka.sh consume sanitize "$2" 'x\n' | wc -l)
  if [[ -f $file ]]; then backed_up=$(wc -l <"$file"); fi
  if (( arrived + backed_up < $3 )); then die "$1: $arrived arrived and $backed_up in the backup, of $3"; fi
  if grep -E 'exited on signal|driver fault|\[emerg\]|\[alert\]' "$STAGE/nginx/$1/error.log" \
    | grep -v 'lua_code_cache is off'; then
    die "$1: see above"
  fi
  rm -rf "$STAGE/nginx/$1" "${LKFK_SHM:?}/$1"
}

# adopted NAME: no queue is left but that of the one worker.
adopted() {
  local patience=$(( PATIENCE * 10 ))
  until (( $(find "$LKFK_SHM/$1" -type f | wc -l) == 1 )); do
    if (( patience-- == 0 )); then die "$1: a queue is left: $(find "$LKFK_SHM/$1" -type f)"; fi
    sleep 0.1
  done
}

topic() {
  dev/kafka.sh topic sanitize "$1" 2
}

reload_and_quit() {
  topic "$1-quit"
  open_nginx quit "$1-quit"
  get "/log?count=$(( MESSAGES / 2 ))" logged
  kill -HUP "$MASTER"
  sleep 1
  get "/log?count=$(( MESSAGES / 2 ))" logged
  get /flush true
  ends QUIT
  kept quit "$1-quit" "$MESSAGES"
}

terminate() {
  topic "$1-term"
  open_nginx term "$1-term"
  get "/log?count=$MESSAGES" logged
  ends TERM
  kept term "$1-term" "$MESSAGES"
}

terminate_without_answers() {
  local signal
  for signal in TERM QUIT; do
    topic "$1-deaf-$signal"
    open_nginx deaf "$1-deaf-$signal"
    get "/log?count=10" logged
    get /flush true
    dev/kafka.sh pause sanitize
    get "/log?count=$MESSAGES" logged
    ends "$signal"
    dev/kafka.sh resume sanitize
    # What it did not get into the backup before the master killed it, the next one adopts.
    dev/nginx.sh start deaf
    MASTER=$(sed -n 's/^PID=//p' "$STAGE/nginx/deaf/env")
    adopted deaf
    get /flush true
    ends QUIT
    kept deaf "$1-deaf-$signal" "$MESSAGES"
  done
}

without_code_cache() {
  topic "$1-cache"
  open_nginx cache "$1-cache" 'lua_code_cache off;'
  get "/log?count=1&n=[1-$REQUESTS]" logged
  get /flush true
  ends QUIT
  kept cache "$1-cache" "$REQUESTS"
}

# judge MODE: the reports in which a frame is lkfk's, each of them whole; a report is what stands
# between empty lines.
judge() {
  local count
  compgen -G "$REPORTS/report.*" >/dev/null || touch "$REPORTS/report.none"
  sed -E 's/^==[0-9]+== ?//' "$REPORTS"/report.* | awk -v RS= '
    /lkfk/ && !/^ *(Suppressions used|used_suppression)/ { print $0 "\n"; found++ }
    END { exit found > 0 }' || die "$1: the reports above name lkfk; all are in $REPORTS"
  count=$(cat "$REPORTS"/report.* | grep -c -E 'at 0x|#0 ' || true)
  if (( count > 0 )); then echo "  $count reports about others, in which lkfk does not occur"; fi
}

check() {
  local mode=$1
  REPORTS=$STAGE/reports-$mode
  mkdir -p "$REPORTS"
  "build_$mode"
  export LKFK_CPATH=$STAGE/lib-$mode
  mkdir -p "$LKFK_CPATH"
  cp "$BUILT" "$LKFK_CPATH/lkfk.so"
  wrap "$mode"
  reload_and_quit "$mode"
  terminate "$mode"
  terminate_without_answers "$mode"
  without_code_cache "$mode"
  judge "$mode"
  echo "$mode: nothing found in lkfk"
}

(( $# > 0 )) || set -- memcheck address
for mode in "$@"; do
  case $mode in
    memcheck) dev/install.sh valgrind ;;
    address) dev/install.sh --nightly ;;
    *) die "no tool $mode; there are: memcheck address" ;;
  esac
done
# The program itself: LKFK_NGINX names a wrapper of it from here on.
NGINX=$(find_nginx)
stage_begin sanitize
dev/kafka.sh start sanitize "log.dirs=$LKFK_SHM/kafka"
BOOTSTRAP=$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/sanitize/env")
for mode in "$@"; do check "$mode"; done
dev/kafka.sh stop sanitize
