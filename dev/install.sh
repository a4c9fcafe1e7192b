#!/usr/bin/env bash
# Installs what building and testing need beside git, cargo and a C compiler: install.sh [--nightly] [PACKAGE,OTHER...]
# Packages that are named are what one command needs besides, --nightly is a nightly Rust. Silent when nothing is
# missing. Needs root, or sudo without a password; otherwise prints what to run, and fails.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

# One a line: the Debian package, then others that serve as well, where a release has no such package.
PACKAGES='make
curl
nginx-light nginx-core nginx-full nginx-extras
libnginx-mod-http-lua
luajit2 luajit
lua-busted
lua-check
lua-cjson
luarocks
openssl
shellcheck
kcat
strace
wrk
btrfs-progs
e2fsprogs
mount
default-jdk-headless openjdk-17-jdk-headless openjdk-21-jdk-headless openjdk-25-jdk-headless
maven'

# Prints those of which nothing is installed, one a word, as NAME,OTHER,...
missing_packages() {
  local name others candidate installed
  # shellcheck disable=SC2086 # one word a package
  installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' $PACKAGES 2>/dev/null || true)"
  while read -r name others; do
    for candidate in $name $others; do
      if [[ $installed == *" installed:$candidate "* ]]; then continue 2; fi
    done
    name="$name $others"
    name=${name% }
    printf '%s ' "${name// /,}"
  done <<<"$PACKAGES"
}

# with_candidate NAME,OTHER,...: the first that apt knows, or NAME.
with_candidate() {
  local name
  for name in ${1//,/ }; do
    if [[ $(apt-cache policy "$name" 2>/dev/null) =~ Candidate:\ [0-9] ]]; then
      echo "$name"
      return
    fi
  done
  echo "${1%%,*}"
}

install_packages() {
  local as_root=()
  if (( EUID != 0 )); then
    if ! setsid sudo -n true 2>/dev/null; then
      die "packages are missing; run: sudo apt-get update &&
  sudo apt-get install -y --no-install-recommends $(for name in "$@"; do printf '%s ' "$(with_candidate "$name")"; done)"
    fi
    as_root=(sudo -n)
  fi
  echo "Installing ${*%%,*}"
  stage_join
  step 'apt-get' "${as_root[@]}" bash -c "$(declare -f apt_install with_candidate nginx_pid); apt_install \"\$@\"" bash "$@"
}

# Runs as root. Debian starts a service as soon as its package is there; nginx is wanted here as a
# program only. A policy of the machine's owner stands; then what came up is stopped again.
apt_install() {
  set -euo pipefail
  local policy=/usr/sbin/policy-rc.d had_nginx running name packages=()
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  had_nginx=$(command -v /usr/sbin/nginx || true)
  running=$(nginx_pid)
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  for name in "$@"; do packages+=("$(with_candidate "$name")"); done
  apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${packages[@]}"
  if [[ -z $had_nginx ]]; then update-rc.d nginx disable >/dev/null 2>&1 || true; fi
  if [[ -z $running && -n $(nginx_pid) ]]; then kill -QUIT "$(nginx_pid)"; fi
}

nginx_pid() {
  local pid
  pid=$(cat /run/nginx.pid 2>/dev/null || true)
  if [[ -n $pid && -d /proc/$pid ]]; then echo "$pid"; fi
}

# rustfmt and clippy come with the toolchain, never from Debian: theirs belong to another compiler.
install_components() {
  local component absent=()
  for component in fmt clippy; do
    if ! cargo "$component" --version >/dev/null 2>&1; then absent+=("$component"); fi
  done
  if (( ${#absent[@]} == 0 )); then return; fi
  command -v rustup >/dev/null ||
    die "cargo ${absent[*]}: not found, and no rustup to add it; install it for this toolchain"
  stage_join
  step "rustup component add ${absent[*]}" rustup component add "${absent[@]/#fmt/rustfmt}"
}

install_nightly() {
  if cargo +nightly --version >/dev/null 2>&1; then return; fi
  command -v rustup >/dev/null || die 'needs a nightly Rust, and finds no rustup to install it'
  stage_join
  step 'rustup toolchain install nightly' rustup toolchain install nightly --profile minimal
}

command -v dpkg-query >/dev/null || die 'needs Debian, or a distribution made from it'
nightly=''
if [[ ${1:-} == --nightly ]]; then nightly=1; shift; fi
dev/cargo.sh
for name in "$@"; do PACKAGES+=$'\n'${name//,/ }; done
missing=$(missing_packages)
# shellcheck disable=SC2086 # one word a package
if [[ -n $missing ]]; then install_packages $missing; fi
install_components
if [[ -n $nightly ]]; then install_nightly; fi
