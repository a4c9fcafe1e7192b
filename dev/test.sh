#!/usr/bin/env bash
# All checks and tests, in the order in which they are quick to fail. Goes on after a failure; the
# last line is "N passed, N failed" over all runners, where a check that fails counts as one test.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

PASSED=0 FAILED=0
LIMIT=(timeout --kill-after=5 1800)
CHAOS=(--manifest-path=dev/chaos/Cargo.toml "--target-dir=$ROOT/target/chaos")

check() {
  step "$1" "${LIMIT[@]}" "${@:2}" || FAILED=$(( FAILED + 1 ))
}

# cargo_test NAME ARGUMENT...: a run without tests has failed, and so has one that breaks off.
cargo_test() {
  local code=0 passed failed
  step "$1" "${LIMIT[@]}" cargo test --no-fail-fast "${@:2}" || code=$?
  read -r passed failed < <(awk '/^test result:/ { passed += $4; failed += $6 }
    END { print passed + 0, failed + 0 }' "$STEP_LOG")
  if (( passed + failed == 0 || code != 0 && failed == 0 )); then failed=$(( failed + 1 )); fi
  tally "$passed" "$failed"
}

tally() {
  PASSED=$(( PASSED + $1 ))
  FAILED=$(( FAILED + $2 ))
  printf '    %s%d passed, %d failed%s\n' "$DIM" "$1" "$2" "$PLAIN"
}

# In two halves side by side, each with nginxes and brokers of its own: they wait far more than they work. The
# lines of the first show as they come, since this takes most of the time.
specs() {
  local half passed failed
  local -A halves=()
  echo '  specs'
  if [[ ! -f $(library) ]]; then tally 0 1; return; fi
  stage_library
  spawn_specs - first spec/[a-o]*_spec.lua
  halves[first]=$SPAWNED
  spawn_specs "$STAGE/log/specs" second spec/[!a-o]*_spec.lua
  halves[second]=$SPAWNED
  for half in first second; do
    SPAWNED=${halves[$half]}
    attend || true
    if [[ $half == second ]]; then cat "$STAGE/log/specs"; fi
    passed=0 failed=1
    if [[ -f $STAGE/$half/spec.result ]]; then read -r passed _ failed _ <"$STAGE/$half/spec.result"; fi
    tally "$passed" "$failed"
  done
}

# spawn_specs LOG STAGE FILE...: in a stage of their own within ours.
spawn_specs() {
  local stage=$STAGE/$2 shm=$LKFK_SHM/$2
  mkdir -p "$stage/log" "$shm"
  ln -s ../pids ../ports ../over "$stage"
  spawn "$1" env "LKFK_STAGE=$stage" "LKFK_SHM=$shm" "${LIMIT[@]}" dev/spec.sh "${@:3}"
}

# Faults from a new seed each time; the first line of its output repeats it.
chaos() {
  if [[ ! -f $(library) ]]; then tally 0 1; return; fi
  stage_library
  if step 'chaos, a short run' "${LIMIT[@]}" dev/chaos.sh --short; then tally 1 0; else tally 0 1; fi
}

# The model of a broker that the simulation and the hostile broker have, by the newest Kafka.
model() {
  dev/kafka.sh start model
  dev/kafka.sh topic model rules 1
  cargo run --quiet --no-default-features --example sequence_rules -- \
    "$(sed -n 's/^BOOTSTRAP=//p' "$STAGE/kafka/model/env")" rules \
    "$(sed -n 's/^VERSION=//p' "$STAGE/kafka/model/env")"
  dev/kafka.sh stop model
}

if [[ ${1:-} == --model ]]; then
  stage_join
  model
  exit
fi
dev/install.sh
stage_begin test
check 'cargo fmt' cargo fmt --check
check 'cargo clippy' cargo clippy --all-targets -- -D warnings
check 'cargo doc' env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps
check 'cargo fmt, chaos' cargo fmt --check "${CHAOS[0]}"
check 'cargo clippy, chaos' cargo clippy --all-targets "${CHAOS[@]}" -- -D warnings
check 'luacheck' luacheck --quiet --no-color lua spec dev
check 'shellcheck' shellcheck --color=never dev/*.sh dev/*/*.sh .ci/run
check 'luarocks lint' luarocks lint lkfk-*.rockspec
check 'cargo build' cargo build --release
cargo_test 'cargo test' --no-default-features --features net,crash_points
# What has no sockets, by itself, as `make sim` builds it.
check 'cargo clippy, without net' cargo clippy --no-default-features --lib --profile test -- -D warnings
# The model checker replaces the atomics of the whole build, hence its own target directory.
RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$ROOT/target/loom \
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
  cargo_test 'cargo test, loom' --no-default-features --release --lib loom
cargo_test 'cargo test, chaos' --release "${CHAOS[@]}"
check 'Kafka' dev/kafka.sh fetch
check 'the model of a broker, by Kafka' dev/test.sh --model
specs
chaos
echo "$PASSED passed, $FAILED failed"
(( FAILED == 0 ))
