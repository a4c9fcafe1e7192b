#!/usr/bin/env bash
# Says in words that help what the compiler would say later and worse: that there is no cargo here, or that it is too
# old. CARGO is the program, as in the Makefile.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

# Words, since it may be "cargo +stable".
read -ra cargo <<<"${CARGO:-cargo}"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
need="the build needs Rust $wanted or later, by rustup"
if ! command -v "${cargo[0]}" >/dev/null; then
  die "${cargo[0]}: not found; $need. Where another user has it, run \`make\` as that user first:
  \`make install\` needs no cargo once the library is built"
fi
version=$("${cargo[@]}" --version 2>&1) || die "${cargo[*]} does not run; $need. It says: $version"
read -r _ version _ <<<"$version"
printf '%s\n' "$wanted" "$version" | sort -V --check=quiet ||
  die "${cargo[*]} is of Rust $version, which is too old (Debian's own is); $need"
