#!/usr/bin/env bash
# What is to go wrong, and when: drawn from SEED, the same for the same seed and options. Source it after
# stage.sh.
#
# A schedule is three files that are played side by side: the brokers and the wires to them, nginx as a
# whole, and the workers. Their lines are `MILLISECOND FAULT SECONDS [ARGUMENT...]`, see faults.sh.

CLUSTER_FAULTS='broker-kill broker-freeze broker-restart rolling leaders outage delay drip cut-request
cut-answer lose swallow freeze refuse hang-up lifetime disk-full disk-hang'
NGINX_FAULTS='reload crash orphans upgrade rollback quit term'
WORKER_FAULTS='kill'
# Seconds that are left after the end of an outage, before the next fault of the brokers.
RECOVERY=6

# draw FROM TO: sets DRAWN to one of them. A generator of our own: bash's differs between versions.
draw() {
  DRAW_STATE=$(( (DRAW_STATE * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff ))
  DRAWN=$(( $1 + (DRAW_STATE >> 24) % ($2 - $1 + 1) ))
}

# pick_from WORD...: sets PICKED.
pick_from() {
  draw 1 $#
  PICKED=${!DRAWN}
}

# shuffle WORD...: sets SHUFFLED.
shuffle() {
  local i
  SHUFFLED=("$@")
  for (( i = $# - 1; i > 0; i-- )); do
    draw 0 "$i"
    set -- "${SHUFFLED[i]}"
    SHUFFLED[i]=${SHUFFLED[DRAWN]}
    SHUFFLED[DRAWN]=$1
  done
}

# wanted NAMES: those of them that FAULTS does not leave out.
wanted() {
  local name
  for name in $1; do
    if [[ -z ${FAULTS:-} || " ${FAULTS//,/ } " == *" $name "* ]]; then printf '%s ' "$name"; fi
  done
}

# write_schedule DIRECTORY FROM TO KILLS OUTAGE: seconds of the run, kills in all, and seconds of an outage.
write_schedule() {
  local directory=$1 from=$2 to=$3 kills=$4 outage=$5
  DRAW_STATE=$(( 10#$SEED ))
  # shellcheck disable=SC2046 # words
  {
    draw_faults "$from" "$to" "$outage" 4000 $(wanted "$CLUSTER_FAULTS") >"$directory/schedule.cluster"
    draw_faults "$from" "$to" "$outage" 12000 $(wanted "$NGINX_FAULTS") >"$directory/schedule.nginx"
  }
  if [[ -z $(wanted "$WORKER_FAULTS") ]]; then kills=0; fi
  draw_kills "$from" "$to" "$kills" | sort -n >"$directory/schedule.workers"
}

# draw_faults FROM TO OUTAGE PAUSE NAME...: one after the other with at most PAUSE milliseconds in between,
# each name once before any comes again.
draw_faults() {
  local at=$(( $1 * 1000 )) end=$(( $2 * 1000 )) outage=$3 pause=$4 took name
  shift 4
  (( $# )) || return 0
  # Who asks for a few faults wants them often.
  if (( $# < 5 )); then pause=1500; fi
  while :; do
    shuffle "$@"
    for name in "${SHUFFLED[@]}"; do
      draw 500 "$pause"
      at=$(( at + DRAWN ))
      draw_fault "$name" "$outage"
      took=$(( (DRAW_SECONDS + DRAW_OWN) * 1000 ))
      if (( at + took > end )); then return; fi
      echo "$at $name $DRAW_SECONDS $DRAW_ARGUMENTS"
      at=$(( at + took ))
    done
  done
}

# draw_fault NAME OUTAGE: sets DRAW_SECONDS, DRAW_OWN, what it takes by itself, and DRAW_ARGUMENTS.
draw_fault() {
  local node usual=$(( $2 < 12 ? $2 : 12 ))
  draw 1 3
  node=$DRAWN
  draw 3 "$usual"
  DRAW_SECONDS=$DRAWN DRAW_OWN=1 DRAW_ARGUMENTS=$node
  case $1 in
    broker-kill | broker-restart | rolling) DRAW_OWN=4 ;;
    outage) DRAW_OWN=$(( 8 + RECOVERY )) ;;
    disk-full | disk-hang | freeze | refuse) DRAW_OWN=$RECOVERY ;;
  esac
  case $1 in
    broker-restart) DRAW_SECONDS=3 ;;
    rolling) DRAW_SECONDS=12 DRAW_ARGUMENTS='' ;;
    leaders) DRAW_SECONDS=$(( $2 < 25 ? 10 : 25 )) ;;
    outage) DRAW_SECONDS=$2 DRAW_ARGUMENTS='' ;;
    disk-full | disk-hang) DRAW_SECONDS=$(( MESSAGE_TIMEOUT * 3 / 2000 )) DRAW_ARGUMENTS='' ;;
    delay) pick_from "$node 100 50" 'all 100 50' "$node 1000 500"; DRAW_ARGUMENTS=$PICKED ;;
    drip) draw 1000 20000; DRAW_ARGUMENTS="$node $DRAWN" ;;
    cut-request | cut-answer) draw_cut; DRAW_ARGUMENTS="all $DRAWN_API $DRAWN_BYTE $DRAWN" ;;
    lose | swallow) draw_cut; DRAW_ARGUMENTS="all $DRAWN_API $DRAWN" ;;
    freeze | refuse) pick_from "$node" all; DRAW_ARGUMENTS=$PICKED ;;
    hang-up) DRAW_ARGUMENTS=all ;;
    lifetime) DRAW_ARGUMENTS='all 500 1500' ;;
    reload | crash | orphans | upgrade | rollback | quit | term) DRAW_SECONDS=1 DRAW_ARGUMENTS='' ;;
  esac
}

# Sets DRAWN_API, DRAWN_BYTE and DRAWN, how often. Half of the cuts lie within a frame's head.
draw_cut() {
  # shellcheck disable=SC2046 # words
  pick_from produce produce produce produce any metadata api-versions \
    $( (( IDEMPOTENCE )) && echo init-producer-id)
  DRAWN_API=$PICKED
  pick_from 40 100000
  draw 0 "$PICKED"
  DRAWN_BYTE=$DRAWN
  draw 1 10
}

# draw_kills FROM TO COUNT: any time, any worker.
draw_kills() {
  local left at
  for (( left = $3; left > 0; left-- )); do
    draw "$(( $1 * 1000 ))" "$(( $2 * 1000 ))"
    at=$DRAWN
    draw 0 999
    echo "$at kill 0 $DRAWN"
  done
}
