#!/usr/bin/env bash
# `make demo`, by root and by another user, and the specs on a Debian 13 of their own: debian13.sh [SPEC-FILE...], as root;
# without files all of spec/.
# debootstrap makes the system in target/debian13, from where this machine's apt has Debian, and it stays for the next
# run. It has nothing at first, so that this also shows what dev/install.sh leaves out. The checkout stands there at a path
# with a space and an umlaut. Rust, the jars of Kafka and lkfk.so are this machine's; LKFK_CPATH, when set, is the
# directory of that lkfk.so, else it is built.
#
# What is mounted for it lies in a mount namespace, and what runs there in a pid namespace: both go with this script,
# however it ends.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

SUITE=trixie
HERE=$ROOT/target/debian13
SYSTEM=$HERE/system
CHECKOUT='/srv/Grüße an alle/lkfk'

# --- Outside of it ---

# Sets MIRROR.
find_mirror() {
  # shellcheck disable=SC2016 # for apt
  local targets=(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian')
  MIRROR=$("${targets[@]}")
  if [[ -z $MIRROR ]]; then
    step 'apt-get update' apt-get update -q
    MIRROR=$("${targets[@]}")
  fi
  MIRROR=${MIRROR%%$'\n'*}
  [[ -n $MIRROR ]] || die 'apt has no source of Debian here'
}

# With its keys and its proxy, as this machine's apt has them.
make_system() {
  local proxy=''
  if [[ -f $HERE/complete ]]; then return; fi
  rm -rf "$SYSTEM"
  mkdir -p "$SYSTEM"
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  step "debootstrap $SUITE" env ${proxy:+"http_proxy=$proxy"} \
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$SUITE" "$SYSTEM" "$MIRROR"
  apt-config dump | grep -E '^Acquire::(http|https)::' >"$SYSTEM/etc/apt/apt.conf.d/90outside" || true
  touch "$HERE/complete"
}

# --- Around it: a shell in the namespaces, before it goes in ---

# Targets that are missing are made in the system, which is a mount of its own: who makes a mount namespace in there needs
# its root to be one.
mount_all() {
  local cargo=${CARGO_HOME:-$HOME/.cargo} rustup=${RUSTUP_HOME:-$HOME/.rustup}
  mount --bind "$SYSTEM" "$SYSTEM"
  mount -t proc proc "$SYSTEM/proc"
  mount --rbind /sys "$SYSTEM/sys"
  mount --rbind /dev "$SYSTEM/dev"
  mount -t tmpfs tmpfs "$SYSTEM/dev/shm"
  mount -t tmpfs tmpfs "$SYSTEM/tmp"
  bind "$cargo" /opt/cargo
  bind "$rustup" /opt/rustup
  bind "$ROOT" "$CHECKOUT"
  # Directories of runs there are not to be taken for those of runs here.
  mkdir -p "$HERE/target"/{kafka,lib}
  bind "$HERE/target" "$CHECKOUT/target"
  bind "$ROOT/target/kafka" "$CHECKOUT/target/kafka"
  bind "$LKFK_CPATH" "$CHECKOUT/target/lib"
  # What an installer would have written.
  echo '127.0.0.1 localhost' >"$SYSTEM/etc/hosts"
  cat /etc/resolv.conf >"$SYSTEM/etc/resolv.conf" 2>/dev/null || true
}

# bind DIRECTORY PLACE
bind() {
  mkdir -p "$SYSTEM$2"
  mount --bind "$1" "$SYSTEM$2"
}

# The environment begins anew: what is set here is of another system.
enter() {
  local toolchain
  toolchain=$(rustup show active-toolchain 2>/dev/null | cut -d ' ' -f 1) || true
  mount_all
  exec env -i "HOME=/root" "PATH=/opt/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    CARGO_HOME=/opt/cargo RUSTUP_HOME=/opt/rustup ${toolchain:+"RUSTUP_TOOLCHAIN=$toolchain"} \
    "LKFK_CPATH=$CHECKOUT/target/lib" ${TERM:+"TERM=$TERM"} \
    chroot "$SYSTEM" "$CHECKOUT/dev/debian13.sh" --inside "$@"
}

# --- In there ---

# All of it runs, whatever became of the others.
inside() {
  local code=0
  sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release
  dev/install.sh
  make demo || code=1
  ( demo_by_another ) || code=1
  dev/spec.sh "$@" || code=1
  exit "$code"
}

# In a checkout of that user's own. Its variables of a run are not root's.
demo_by_another() {
  local home=/home/newcomer
  local checkout="$home/Grüße an alle/lkfk"
  id newcomer >/dev/null 2>&1 || useradd --create-home newcomer
  rm -rf "$checkout"
  mkdir -p "$checkout/target"
  find . -mindepth 1 -maxdepth 1 ! -name target ! -name .git -exec cp -r -t "$checkout" {} +
  ln -s "$ROOT/target/kafka" "$checkout/target"
  chown -R newcomer: "$home"
  cd "$checkout"
  env -u LKFK_STAGE -u LKFK_SHM "HOME=$home" setpriv --reuid=newcomer --regid=newcomer --init-groups make demo
}

case ${1:-} in
  --around) enter "${@:2}" ;;
  --inside) inside "${@:2}" ;;
esac
(( EUID == 0 )) || die 'to make a system and to mount takes root'
dev/install.sh debootstrap
stage_begin debian13
if [[ -z ${LKFK_CPATH:-} ]]; then step 'lkfk.so' cargo build --release; fi
stage_library
step 'Kafka, from Maven' dev/kafka.sh fetch
find_mirror
make_system
spawn - unshare --mount --pid --fork --kill-child dev/debian13.sh --around "$@"
attend
