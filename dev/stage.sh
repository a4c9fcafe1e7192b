#!/usr/bin/env bash
# What the scripts in dev/ share: the stage of a run, free ports, and the lines a person reads.
# Source it: it sets ROOT and changes into it.
#
# A stage is one run's directory, target/run/NAME.PID, with everything the run started. Below a checkout that other
# users cannot enter, a root's stages are in /var/tmp, since workers of nginx that are not root read them. Invariants:
# - The script that opens a stage owns it. Scripts it calls find it in LKFK_STAGE and join it.
# - A process started with `spawn` stands in $STAGE/pids before its exec, and leads a session of its
#   own, so that one signal to its group reaches all its children, orphans included. Its file holds
#   its start time: a number alone may be somebody else's a minute later.
# - When the owner ends, all that stands in $STAGE/pids is killed: by the owner's trap, or, where
#   the owner was killed itself, by a watchdog within a second. When the owner was called by make,
#   the watchdog ends it as soon as that make is gone.
# - A stage within a stage has directories of its own, and pids, ports and the end in common with it, by links
#   (spawn_specs in test.sh).
# - LKFK_SHM is the run's directory for queue files, in /dev/shm where that has room; it goes too.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$ROOT" || exit 1
export LC_ALL=C.UTF-8

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  DIM=$'\e[2m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  DIM='' RED='' PLAIN=''
fi

die() {
  printf '%s%s: %s%s\n' "$RED" "${0##*/}" "$*" "$PLAIN" >&2
  exit 1
}

# nginx takes a variable of that name for sockets that it inherits; the program is LKFK_NGINX.
unset NGINX
# Workers that are not root read what is made here.
umask 022

# --- The stage ---

# Sets RUNS, the directory of stages.
find_runs() {
  RUNS=$ROOT/target/run
  if (( EUID != 0 )) || is_open_to_others "$ROOT"; then return; fi
  RUNS=/var/tmp/lkfk-run.$(cksum <<<"$ROOT" | cut -d ' ' -f 1)
  mkdir -m 755 "$RUNS" 2>/dev/null || [[ -d $RUNS && -O $RUNS && ! -L $RUNS ]] || die "$RUNS is somebody else's"
}

# is_open_to_others DIR: whether any user can go there.
is_open_to_others() {
  local dir=$1
  while [[ -n $dir ]]; do
    if (( ! (8#$(stat -c %a "$dir") & 1) )); then return 1; fi
    dir=${dir%/*}
  done
}

# stage_begin NAME: joins the stage of the caller, or opens one and owns it.
stage_begin() {
  if [[ -n ${LKFK_STAGE:-} && -d $LKFK_STAGE/pids ]]; then
    STAGE=$LKFK_STAGE
    return
  fi
  find_runs
  forget_ended "$RUNS/$1."* "/dev/shm/lkfk-$1."*
  STAGE=$RUNS/$1.$$
  export LKFK_STAGE=$STAGE LKFK_SHM=$STAGE/shm
  if shm_has_room; then LKFK_SHM=/dev/shm/lkfk-$1.$$; fi
  rm -rf "$STAGE" "$LKFK_SHM"
  mkdir -p "$STAGE"/{pids,ports,log} "$LKFK_SHM"
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap stage_end EXIT
  local make=''
  if [[ $(cat "/proc/$PPID/comm" 2>/dev/null) == make ]]; then make=$PPID; fi
  setsid bash "$ROOT/dev/stage.sh" $$ "$make" </dev/null >/dev/null 2>&1 &
  WATCHDOG=$!
  disown "$WATCHDOG"
}

# stage_join: for a tool called by hand as well as by a script. By hand there is no owner, and what
# was started stays until it is stopped.
stage_join() {
  if [[ -z ${LKFK_STAGE:-} ]]; then find_runs; fi
  STAGE=${LKFK_STAGE:-$RUNS/manual}
  mkdir -p "$STAGE"/{pids,ports,log}
}

# The directory of a run that failed stays until the next run of that name, for its logs.
stage_end() {
  local code=$?
  trap '' HUP INT TERM
  if (( code > 128 )); then echo; fi
  exec 2>/dev/null # bash would report each process it kills
  kill_all
  kill -KILL "$WATCHDOG" 2>/dev/null || true
  rm -rf "$LKFK_SHM"
  if (( code == 0 )); then rm -rf "$STAGE"; fi
  exit "$code"
}

# watch OWNER MAKE: the watchdog, a process of its own.
watch() {
  local owner=$1 make=$2 started
  STAGE=$LKFK_STAGE
  look "$owner" && started=$STARTED
  while look "$owner" && [[ $STARTED == "${started:-}" && $STATE != [ZX] ]]; do
    if [[ -n $make && $(awk '/^PPid/ { print $2 }' "/proc/$owner/status") != "$make" ]]; then
      kill -TERM "$owner" || true
      make=''
    fi
    sleep 0.5
  done
  kill_all
  rm -rf "$LKFK_SHM"
}

# Also what is being started right now: that sees `over`, or is seen in pids. Two rounds at least, for
# the children of what dies in the first.
kill_all() {
  local file pid round left
  : >"$STAGE/over"
  for round in {1..100}; do
    left=0
    for file in "$STAGE"/pids/*; do
      pid=${file##*/}
      if [[ $pid == '*' ]]; then return; fi
      kill_group "$pid"
      if running "$pid"; then left=1; fi
    done
    if (( round > 1 && left == 0 )); then return; fi
    sleep 0.02
  done
}

forget_ended() {
  local dir
  for dir in "$@"; do
    if [[ -d $dir && ! -d /proc/${dir##*.} ]]; then rm -rf "$dir" || true; fi
  done
}

shm_has_room() {
  local free
  [[ -d /dev/shm && -w /dev/shm ]] || return 1
  free=$(df --output=avail -k /dev/shm | tail -n 1)
  (( free > 512 * 1024 ))
}

# --- Processes ---

# look PID: sets STATE and STARTED from the kernel's table.
look() {
  local fields
  { read -r fields <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra fields <<<"${fields##*) }"
  STATE=${fields[0]} STARTED=${fields[19]}
}

# A zombie is not alive: nobody may ever wait for an orphan.
alive() {
  look "$1" && [[ $STATE != [ZX] ]]
}

# running PID: alive, and still what `spawn` started under that number.
running() {
  marked "$1" && alive "$1" && [[ $STARTED == "$MARK" ]]
}

marked() {
  { read -r MARK <"$STAGE/pids/$1"; } 2>/dev/null
}

# kill_group PID: the group of what was spawned, whether its leader lives or not. The number of a
# group is not given away while the group has members.
kill_group() {
  if [[ ! -d /proc/$1 ]] || { marked "$1" && look "$1" && [[ $STARTED == "$MARK" ]]; } then
    kill -KILL -- "-$1" || kill -KILL "$1" || true
  fi 2>/dev/null
}

# spawn LOG COMMAND...: starts a program, with its output appended to LOG ("-": ours) and no other
# descriptor of ours; SPAWNED is its pid.
spawn() {
  local log=$1
  shift
  (
    look "$BASHPID"
    note_pid "$BASHPID"
    if [[ -e $STAGE/over ]]; then exit 1; fi
    exec </dev/null
    if [[ $log != - ]]; then exec >>"$log" 2>&1; fi
    for fd in "/proc/$BASHPID/fd"/*; do
      fd=${fd##*/}
      if (( fd > 2 )); then exec {fd}>&-; fi
    done
    exec setsid "$@"
  ) &
  SPAWNED=$!
  if look "$SPAWNED"; then note_pid "$SPAWNED"; fi
}

# note_pid PID: by rename, so that nobody reads a file that is not written yet.
note_pid() {
  echo "$STARTED" >"$STAGE/note.$BASHPID.$1"
  mv "$STAGE/note.$BASHPID.$1" "$STAGE/pids/$1"
}

# attend: waits for SPAWNED, open to signals, and ends what it left behind in its group.
attend() {
  local code=0 pid=$SPAWNED
  wait "$pid" || code=$?
  kill_group "$pid"
  rm -f "$STAGE/pids/$pid"
  return "$code"
}

# halt PID SIGNAL SECONDS: asks with SIGNAL. Fails when it took a kill, after SECONDS.
halt() {
  local pid=$1 patience=$(( $3 * 50 )) code=0
  [[ -f $STAGE/pids/$pid ]] || return 0
  if running "$pid"; then kill "-$2" "$pid" && kill -CONT "$pid"; fi 2>/dev/null || true
  while running "$pid" && (( patience-- > 0 )); do sleep 0.02; done
  if running "$pid"; then code=1; fi
  kill_group "$pid"
  while running "$pid"; do sleep 0.02; done
  rm -f "$STAGE/pids/$pid"
  return "$code"
}

# --- Ports ---

# Sets PORT to one nobody listens on, below the range the kernel gives to clients, and never the
# same twice in one stage.
free_port() {
  while :; do
    PORT=$(( 20000 + SRANDOM % 12000 ))
    if listening "$PORT"; then continue; fi
    if mkdir "$STAGE/ports/$PORT" 2>/dev/null; then return; fi
  done
}

listening() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# --- Lines for a person ---

# step NAME COMMAND...: one line with name and seconds. On a terminal the newest line of output
# shows while it runs; all output goes to STEP_LOG, and is shown when the command fails.
step() {
  local name=$1 code=0 begun=$EPOCHREALTIME
  shift
  step_log "$name"
  printf '  %-46s' "$name"
  : >>"$STEP_LOG" # it is looked at before the command has written anything
  spawn "$STEP_LOG" "$@"
  if [[ -t 1 ]]; then show_progress "$name" "$begun"; fi
  attend || code=$?
  tell_step "$code" "$(since "$begun")"
}

# Sets STEP_LOG to that of the step NAME.
step_log() {
  STEP_LOG=$STAGE/log/${1//[^A-Za-z0-9.]/_}
}

# tell_step CODE SECONDS: the end of a step's line. Returns CODE.
tell_step() {
  if (( $1 == 0 )); then
    printf '%6.1f s\n' "$2"
  else
    printf '%6.1f s  %sFAILED%s\n' "$2" "$RED" "$PLAIN"
    tail -n 200 "$STEP_LOG" | sed 's/^/    /'
  fi
  return "$1"
}

# aside NAME COMMAND...: begins a step that goes on beside those that follow, until `joined NAME`. How long it took is in
# its log's .seconds.
declare -A ASIDE=()
aside() {
  step_log "$1"
  # shellcheck disable=SC2016 # for the inner shell
  spawn "$STEP_LOG" bash -c '
    begun=$EPOCHREALTIME code=0
    "${@:2}" || code=$?
    awk -v from="$begun" -v to="$EPOCHREALTIME" "BEGIN { print to - from }" >"$1.seconds"
    exit "$code"' aside "$STEP_LOG" "${@:2}"
  ASIDE[$1]=$SPAWNED
}

# joined NAME: waits for that step, and prints its line.
joined() {
  local code=0
  step_log "$1"
  printf '  %-46s' "$1"
  SPAWNED=${ASIDE[$1]}
  attend || code=$?
  tell_step "$code" "$(cat "$STEP_LOG.seconds" 2>/dev/null || echo 0)"
}

show_progress() {
  local width line
  width=$(tput cols 2>/dev/null || echo 80)
  while running "$SPAWNED"; do
    line=$(tail -n 1 "$STEP_LOG" 2>/dev/null | tr -dc '[:print:]')
    printf '\r  %-46s%6.1f s  %s%s%s\e[K' "$1" "$(since "$2")" \
      "$DIM" "${line:0:$(( width > 60 ? width - 60 : 0 ))}" "$PLAIN"
    sleep 0.1
  done
  printf '\r  %-46s' "$1"
  printf '\e[K'
}

# since BEGUN: seconds since that EPOCHREALTIME.
since() {
  local now=$EPOCHREALTIME
  local us=$(( ${now/[.,]/} - ${1/[.,]/} ))
  printf '%d.%03d' $(( us / 1000000 )) $(( us / 1000 % 1000 ))
}

# --- What the stage plays ---

# The library as cargo builds it.
library() {
  printf '%s/release/liblkfk.so' "${CARGO_TARGET_DIR:-$ROOT/target}"
}

# stage_library: sets LKFK_CPATH to a directory with lkfk.so in it. A copy: a build meanwhile must
# not change what runs.
stage_library() {
  export LKFK_CPATH=${LKFK_CPATH:-$STAGE/lib}
  if [[ $LKFK_CPATH == "$STAGE/lib" && ! -f $STAGE/lib/lkfk.so ]]; then
    mkdir -p "$STAGE/lib"
    cp "$(library)" "$STAGE/lib/lkfk.so"
  fi
}

# LKFK_NGINX, or what there is: Debian keeps it out of a user's PATH; OpenResty out of anybody's.
find_nginx() {
  local candidate
  if [[ -n ${LKFK_NGINX:-} ]]; then
    command -v "$LKFK_NGINX" || die "LKFK_NGINX: no program $LKFK_NGINX"
    return
  fi
  for candidate in nginx openresty /usr/sbin/nginx /usr/local/openresty/nginx/sbin/nginx; do
    if command -v "$candidate"; then return; fi
  done
  die 'no nginx found; dev/install.sh installs it'
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  watch "$@"
fi
