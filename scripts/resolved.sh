#!/usr/bin/env bash
# Prints the path of systemd-resolved: the machine's own, else Debian's package
# unpacked into the user's cache, for a test. It is not installed, since that
# would put it in charge of the machine's own lookups.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

own=/lib/systemd/systemd-resolved
unpacked=$CACHE/resolved

fetch() {
    local scratch=$1 package
    # Moved into place at the end, so that nobody ever runs half of it.
    (cd "$scratch" && apt-get -q -o APT::Sandbox::User= download systemd-resolved libsystemd-shared) &&
        for package in "$scratch"/*.deb; do dpkg-deb -x "$package" "$scratch/unpacked" || return; done &&
        mkdir -p "$CACHE" && mv "$scratch/unpacked" "$unpacked"
}

if [[ -x $own ]]; then
    printf '%s\n' "$own"
    exit
fi
if [[ ! -x $unpacked$own ]]; then
    on_debian || die "no systemd-resolved here, and this is no Debian to fetch its package from"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    step "Tests: fetching Debian's package of systemd-resolved" fetch "$scratch" ||
        die "systemd-resolved could not be fetched from this machine's Debian archive"
fi
printf '%s\n' "$unpacked$own"
