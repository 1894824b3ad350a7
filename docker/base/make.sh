#!/usr/bin/env bash
# Prints the name of the image that the Dockerfiles shall start from.
#
#   make.sh NAME LABEL
#
# That is the official Python image where it is here already or a registry gives
# it. Where none answers it is NAME, made of Debian packages by debootstrap; its
# tarball is kept in the user's cache, by the content of this file.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../scripts/lib.sh
. "$(dirname "$0")/../../scripts/lib.sh"

name=$1
label=$2
official=python:3.11.14-slim-bookworm
suite=bookworm # its python3 is 3.11, as the official image's
packages=python3,python3-venv,ca-certificates
pull_seconds=10 # until a registry must have begun to answer

key=$({ cat "$0" && dpkg --print-architecture 2>/dev/null; } | sha256sum | cut -c1-12)
tarball=$CACHE/base-$key.tar.gz

present() { docker image inspect "$1" >/dev/null 2>&1; }

# pull: the official image; fails where no registry has told of it in time.
pull() {
    local log pid
    log=$(mktemp)
    docker pull "$official" >"$log" 2>&1 &
    pid=$!
    for ((tenths = 0; tenths < pull_seconds * 10; tenths++)); do
        # Said as soon as the registry has answered; the rest may take its time.
        if grep -q 'Pulling from' "$log" || ! kill -0 "$pid" 2>/dev/null; then
            break
        fi
        sleep 0.1
    done
    grep -q 'Pulling from' "$log" || kill "$pid" 2>/dev/null || true
    rm -f "$log"
    wait "$pid"
}

make_tarball() {
    local scratch=$1 source mirror keyring
    source=$(debian_source "$suite") || source=
    # Without a mirror or keyring that it understands, debootstrap takes Debian's own.
    mirror=$(sed -nE 's#^URIs: *((http|https|file):[^ ]+).*#\1#p' <<<"$source")
    keyring=$(sed -nE 's#^Signed-By: *(/[^ ]+).*#\1#p' <<<"$source")
    debootstrap --variant=minbase --include="$packages" ${keyring:+--keyring="$keyring"} \
        "$suite" "$scratch/root" ${mirror:+"$mirror"} &&
        prune "$scratch/root" &&
        tar -C "$scratch/root" --numeric-owner -c . | gzip -1 >"$scratch/base.tar.gz" &&
        mv "$scratch/base.tar.gz" "$tarball"
}

# prune ROOT: leave out what no container reads: half of the size.
prune() {
    rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/var/log/* \
        "$1"/usr/share/{doc,man,info,locale,lintian}/*
}

if present "$official"; then
    echo "$official"
    exit
fi
if present "$name:$key"; then
    echo "$name:$key"
    exit
fi
if [[ ! -s $tarball ]]; then
    printf 'Images: asking the registry for %s ... ' "$official" >&2
    if pull; then
        say "pulled"
        mkdir -p "$CACHE" && echo "$official" >"$CACHE/pulled-base"
        echo "$official"
        exit
    fi
    say "no answer"
    if ! may_install && ! { [[ $(id -u) = 0 ]] && have debootstrap; }; then
        die "no registry gives $official, and to make one of Debian packages takes root and debootstrap"
    fi
    have debootstrap || step "Images: installing debootstrap" apt_install debootstrap || die "it could not be installed"
    mkdir -p "$CACHE"
    scratch=$(mktemp -d -p "$CACHE")
    trap 'rm -rf "$scratch"' EXIT
    step "Images: making a base of Debian packages instead (once, about a minute)" make_tarball "$scratch" ||
        die "debootstrap failed; see above"
fi
step "Images: loading the base made of Debian packages" \
    docker import --change "LABEL $label" --change 'CMD ["bash"]' "$tarball" "$name:$key" ||
    die "docker import $tarball failed; see above, or remove that file and try again"
echo "$name:$key"
