#!/usr/bin/env bash
# Compares two builds of lkfk: pairs.sh OLD NEW, the directories of two lkfk.so. Measures them in turn, PAIRS=5 times,
# and prints the median of the pairs' ratios, new to old, of each figure of `make bench`: below 1 the new one takes less.
# Takes some three minutes a measurement.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
source dev/bench/worker.sh

PAIRS=${PAIRS:-5}

# figures FILE: a line for each figure of a run of bench.sh, its name and number.
figures() {
  awk '
    $1 == "lkfk" && $4 == "ns" { print $2, "log()", $3; print $2, "loop", $5; print $2, "process", $7; print $2, "flat", $10 }
    $1 == "lkfk" && $3 == "ns" { print "bursts log()", $2; print "bursts loop", $4; print "bursts process", $6 }
  ' "$1"
}

# medians FILE: of lines of a figure's name and a ratio, the median of each name.
medians() {
  sort "$1" | awk '
    function tell() { if (n) printf "%-24s %.2f  (%.2f to %.2f)\n", name, n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2, v[1], v[n] }
    { ratio = $NF; $NF = ""; if ($0 != name) { tell(); n = 0; name = $0 } v[++n] = ratio }
    END { tell() }'
}

(( $# == 2 )) || die 'usage: pairs.sh OLD NEW, the directories of two lkfk.so'
for dir in "$@"; do [[ -f $dir/lkfk.so ]] || die "no file $dir/lkfk.so"; done
declare -A BUILDS=([old]=$(cd "$1" && pwd) [new]=$(cd "$2" && pwd))
stage_begin pairs
for (( pair = 1; pair <= PAIRS; pair++ )); do
  for side in old new; do
    progress "pair $pair of $PAIRS, $side"
    ONLY=lkfk LKFK_CPATH=${BUILDS[$side]} dev/bench.sh >"$STAGE/$side.run"
    figures "$STAGE/$side.run" >"$STAGE/$side.figures"
  done
  paste -d ' ' "$STAGE/old.figures" "$STAGE/new.figures" |
    awk '{ half = NF / 2; name = $1; for (i = 2; i < half; i++) name = name " " $i
           printf "%s %.4f\n", name, $half > 0 ? $NF / $half : 1 }' >>"$STAGE/ratios"
  progress
  echo "pair $pair: $(tr '\n' ';' <"$STAGE/old.figures" | sed 's/;$//') against $(cut -d ' ' -f 3- <"$STAGE/new.figures" | tr '\n' ' ')"
done
echo "new to old, medians of $PAIRS pairs:"
medians "$STAGE/ratios"
