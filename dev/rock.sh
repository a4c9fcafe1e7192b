#!/usr/bin/env bash
# Packs what is committed as a source rock, target/rock/lkfk-VERSION.src.rock, which `luarocks install` builds anywhere.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

command -v luarocks >/dev/null || die 'luarocks: not found; it is a package of that name'
rockspecs=(lkfk-*.rockspec)
(( ${#rockspecs[@]} == 1 )) || die "one rockspec is expected here: ${rockspecs[*]}"
archive=$(sed -n 's,^ *url = "file://\(.*\)".*,\1,p' "${rockspecs[0]}")
place=$ROOT/target/rock
rm -rf "$place"
mkdir -p "$place"
git archive --prefix="${archive%.tar.gz}/" --output="$place/$archive" HEAD
sed "s|file://$archive|file://${place//[&|\\]/\\&}/$archive|" "${rockspecs[0]}" >"$place/${rockspecs[0]}"
luarocks lint "$place/${rockspecs[0]}"
cd "$place"
luarocks pack "${rockspecs[0]}"
