#!/usr/bin/env bash
# All checks and tests, in the order in which they are quick to fail. Goes on after a failure; the
# last line is "N passed, N failed" over all runners, where a check that fails counts as one test.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

PASSED=0 FAILED=0
LIMIT=(timeout --kill-after=5 1800)
TESTED=(--no-default-features --features 'net,crash_points')
# Those in tests/ that wait far more than they work.
WAITING='crash_points hanging_disk hostile_broker several_producers'
CHAOS=(--manifest-path=dev/chaos/Cargo.toml "--target-dir=$ROOT/target/chaos")

check() {
  step "$1" "${LIMIT[@]}" "${@:2}" || FAILED=$(( FAILED + 1 ))
}

# cargo_test NAME ARGUMENT...
cargo_test() {
  local code=0
  step "$1" "${LIMIT[@]}" cargo test --no-fail-fast "${@:2}" || code=$?
  count_tests "$code"
}

# as_targets NAME...: as cargo is told of them.
as_targets() {
  printf -- '--test %s ' "$@"
}

# not_waiting: all in tests/ but WAITING.
not_waiting() {
  local file name
  for file in tests/*.rs; do
    name=${file##*/}
    name=${name%.rs}
    if [[ " $WAITING " != *" $name "* ]]; then printf '%s ' "$name"; fi
  done
}

# count_tests CODE: of the step that ended last, with CODE. A run without tests has failed, and so has one that breaks off.
count_tests() {
  local passed failed
  read -r passed failed < <(awk '/^test result:/ { passed += $4; failed += $6 }
    END { print passed + 0, failed + 0 }' "$STEP_LOG")
  if (( passed + failed == 0 || $1 != 0 && failed == 0 )); then failed=$(( failed + 1 )); fi
  tally "$passed" "$failed"
}

tally() {
  PASSED=$(( PASSED + $1 ))
  FAILED=$(( FAILED + $2 ))
  printf '    %s%d passed, %d failed%s\n' "$DIM" "$1" "$2" "$PLAIN"
}

# By several runners side by side, each with nginxes and brokers of its own, while the tests are built and run: they wait
# far more than they work. Each takes the next file that none has yet, the large ones first, since those take longest.
declare -A RUNNERS=()

begin_specs() {
  local runner
  local -a files
  if [[ ! -f $(library) ]]; then return; fi
  stage_library
  export SPEC_CLAIMS=$STAGE/claims
  mkdir "$SPEC_CLAIMS"
  mapfile -t files < <(find spec -name '*_spec.lua' -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2)
  for runner in first second third; do
    spawn_specs "$runner" "${files[@]}"
    RUNNERS[$runner]=$SPAWNED
  done
  unset SPEC_CLAIMS
}

# What each runner has printed, when it has ended.
end_specs() {
  local runner passed failed
  echo '  specs'
  if (( ${#RUNNERS[@]} == 0 )); then tally 0 1; return; fi
  for runner in first second third; do
    SPAWNED=${RUNNERS[$runner]}
    attend || true
    cat "$STAGE/log/specs-$runner"
    passed=0 failed=1
    if [[ -f $STAGE/$runner/spec.result ]]; then read -r passed _ failed _ <"$STAGE/$runner/spec.result"; fi
    tally "$passed" "$failed"
  done
}

# spawn_specs RUNNER FILE...: in a stage of its own within ours.
spawn_specs() {
  local stage=$STAGE/$1 shm=$LKFK_SHM/$1 log=$STAGE/log/specs-$1
  mkdir -p "$stage/log" "$shm"
  ln -s ../pids ../ports ../over "$stage"
  spawn "$log" env "LKFK_STAGE=$stage" "LKFK_SHM=$shm" "${LIMIT[@]}" dev/spec.sh "${@:2}"
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
# One processor links the library, mostly; the other checks meanwhile.
aside 'cargo build' "${LIMIT[@]}" cargo build --release
check 'cargo fmt' cargo fmt --check
check 'cargo fmt, chaos' cargo fmt --check "${CHAOS[0]}"
check 'luacheck' luacheck --quiet --no-color lua spec dev examples
check 'shellcheck' shellcheck --color=never dev/*.sh dev/*/*.sh .ci/run
check 'luarocks lint' luarocks lint lkfk-*.rockspec
check 'cargo clippy' cargo clippy --all-targets -- -D warnings
check 'cargo doc' env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --document-private-items
check 'cargo clippy, chaos' cargo clippy --all-targets "${CHAOS[@]}" -- -D warnings
joined 'cargo build' || FAILED=$(( FAILED + 1 ))
check 'Kafka' dev/kafka.sh fetch
begin_specs
check 'cargo test, the build' cargo test --no-run "${TESTED[@]}"
# They wait, for brokers that they play and processes that they kill, while others are built.
# shellcheck disable=SC2046,SC2086 # words
aside 'cargo test, what waits' env RUST_TEST_THREADS=6 "${LIMIT[@]}" \
  cargo test --no-fail-fast "${TESTED[@]}" $(as_targets $WAITING)
# shellcheck disable=SC2046 # words
cargo_test 'cargo test' "${TESTED[@]}" --lib $(as_targets $(not_waiting))
check 'cargo test, documentation' cargo test --quiet "${TESTED[@]}" --doc
# What has no sockets, by itself, as `make sim` builds it.
check 'cargo clippy, without net' cargo clippy --no-default-features --lib --profile test -- -D warnings
# The model checker replaces the atomics of the whole build, hence its own target directory.
RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$ROOT/target/loom \
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
  cargo_test 'cargo test, loom' --no-default-features --release --lib loom
cargo_test 'cargo test, chaos' --release "${CHAOS[@]}"
code=0
joined 'cargo test, what waits' || code=$?
count_tests "$code"
check 'the model of a broker, by Kafka' dev/test.sh --model
end_specs
chaos
echo "$PASSED passed, $FAILED failed"
(( FAILED == 0 ))
