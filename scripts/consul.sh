#!/usr/bin/env bash
# Prints the path of a Consul binary: the one on PATH, else one fetched earlier,
# else Debian's package of bullseye (Consul 1.8.7, with its UI), unpacked into the
# user's cache. Nothing is installed, the system's apt lists stay as they are,
# and root is not needed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

binary=$CACHE/bin/consul

fetch() {
    local scratch=$1
    local -a apt=(
        apt-get -q
        -o "Dir::Etc::sourcelist=$scratch/bullseye.sources" -o Dir::Etc::sourceparts=-
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Sandbox::User= # the scratch folder is this user's alone
    )
    # Chained, because "set -e" is off in a function whose failure is tested; and
    # moved into place at the end, so that nobody ever runs half a binary.
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "${binary%/*}" &&
        debian_source bullseye >"$scratch/bullseye.sources" &&
        "${apt[@]}" update &&
        (cd "$scratch" && "${apt[@]}" download consul) &&
        dpkg-deb -x "$scratch"/consul_*.deb "$scratch/unpacked" &&
        mv "$scratch/unpacked/usr/bin/consul" "$binary.$$" &&
        mv "$binary.$$" "$binary"
}

if have consul; then
    command -v consul
    exit
fi
if [[ ! -x $binary ]]; then
    on_debian || die "no consul on PATH, and this is no Debian to fetch its package from; install Consul and put it on PATH"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    step "Consul: fetching Debian's package of bullseye" fetch "$scratch" ||
        die "Consul could not be fetched from this machine's Debian archive; install it and put it on PATH"
fi
printf '%s\n' "$binary"
