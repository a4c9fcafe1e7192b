#!/usr/bin/env bash
# Compares two builds of lkfk: pairs.sh OLD NEW, the directories of two lkfk.so. Each has a worker of its own on one broker,
# and the two are measured in turn, PAIRS=5 times, so that what the machine does besides meets both. Prints the median of
# the pairs' ratios, new to old, and the least and the greatest: below 1 the new one takes less. What is measured is what
# `make bench` measures, see there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/worker.sh

PAIRS=${PAIRS:-5}
RATE=50000 FLAT=1000000 KEYS=64

# pace N RATE [idle]: a run of the worker at URL.
pace() {
  get "/pace?topic=bench&n=$1&rate=$2&keys=$KEYS&idle=${3:+1}&bursts=$BURSTS" >"$STAGE/run"
  read_run "$STAGE/run"
}

# measure SIDE: appends "FIGURE NUMBER" lines to the side's file.
measure() {
  local call thread process
  URL=${URLS[$1]}
  pace "$PACED" "$RATE" idle
  call=$CALL thread=$THREAD process=$PROCESS
  pace "$PACED" "$RATE"
  {
    echo "log() $(calculate "$CALL - $call")"
    echo "loop $(calculate "$THREAD - $thread")"
    echo "process $(calculate "$PROCESS - $process")"
    if [[ -z $BURSTS ]]; then
      pace "$FLAT" 0
      echo "flat out $PROCESS"
    fi
  } >"$STAGE/figures.$1"
}

# compare NAME VERSION PARTITIONS LINGER PACED [BURSTS]: a group of lines. PACED messages are logged in a paced run. A queue
# that holds little grows at the begin of a burst, and gives memory back in a pause of ten seconds: with bursts a run is
# long enough that this is not what is measured.
compare() {
  local pair side order PACED=$5 BURSTS=${6:-}
  local -A URLS
  open_broker "$2" bench "$3"
  for side in old new; do
    LKFK_CPATH=${BUILDS[$side]} open_worker "require('producers').start('lkfk', '$BOOTSTRAP', $4)" \
      "location = /pace { content_by_lua_file \"$ROOT/dev/bench/pace.lua\"; }" "$side"
    URLS[$side]=$URL
    progress "$1: warming up, $side"
    pace 100000 "$RATE"
    if [[ -z $BURSTS ]]; then pace 500000 0; fi
  done
  : >"$STAGE/ratios"
  order='old new'
  for (( pair = 1; pair <= PAIRS; pair++ )); do
    for side in $order; do
      progress "$1: pair $pair of $PAIRS, $side"
      measure "$side"
    done
    order=$([[ $order == 'old new' ]] && echo 'new old' || echo 'old new')
    paste -d ' ' "$STAGE/figures.old" "$STAGE/figures.new" |
      awk '{ half = NF / 2; name = $1; for (i = 2; i < half; i++) name = name " " $i
             ratio = ($half > 0) ? $NF / $half : 1
             printf "%s|%.4f|%s|%s\n", name, ratio, $half, $NF }' >>"$STAGE/ratios"
  done
  progress
  echo "$1 on Kafka $VERSION"
  for side in old new; do close_worker "$side"; done
  close_broker
  tell
}

# tell: of the pairs' lines FIGURE|RATIO|OLD|NEW a line for each figure.
tell() {
  local figure
  while read -r figure; do
    grep -F "$figure|" "$STAGE/ratios" | sort -t '|' -k 2 -g | awk -F '|' -v figure="$figure" '
      { ratio[NR] = $2; old[NR] = $3; new[NR] = $4 }
      END { printf "  %-10s %.2f  (%.2f to %.2f; %.0f and %.0f ns in the median pair)\n",
              figure, ratio[int((NR + 1) / 2)], ratio[1], ratio[NR], old[int((NR + 1) / 2)], new[int((NR + 1) / 2)] }'
  done < <(cut -d '|' -f 1 "$STAGE/ratios" | awk '!seen[$0]++')
}

(( $# == 2 )) || die 'usage: pairs.sh OLD NEW, the directories of two lkfk.so'
for dir in "$@"; do [[ -f $dir/lkfk.so ]] || die "no file $dir/lkfk.so"; done
declare -A BUILDS=([old]=$(cd "$1" && pwd) [new]=$(cd "$2" && pwd))
dev/install.sh
stage_begin pairs
dev/kafka.sh fetch
dev/kafka.sh fetch 3.9.1
echo "new to old, medians of $PAIRS pairs"
compare 'paced and flat out' default 8 100 200000
compare 'paced and flat out' 3.9.1 8 100 200000
compare 'bursts of one key' default 4 500 800000 1
