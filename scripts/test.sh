#!/usr/bin/env bash
# Every test. Those of a Swarm and those of one engine spend their time waiting
# for Docker, so they run beside each other, and first of all, behind the Swarm's
# in the queue for the processor, those that need no engine or wait for a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=lib.sh
. scripts/lib.sh

pytest=.venv/bin/pytest
log=$(mktemp)
failed=0

# Pytest's exit code: 1 where a test failed, more where it was ended.
without_swarm() {
    local failed=0
    say "Tests that need no engine:"
    nice $pytest -p no:cacheprovider -m "not lab and (patient or not (engine or demo or browser))" || failed=$?
    [ "$failed" -le 1 ] || return "$failed"
    say "Tests on one engine:"
    $pytest -p no:cacheprovider -m "not lab and not patient and (engine or demo or browser)" || failed=$?
    return "$failed"
}

# As a job of its own it can be interrupted, and then removes what it made.
set -m
without_swarm >"$log" 2>&1 &
beside=$!
set +m
trap 'kill -INT -- "-$beside" 2>/dev/null && wait "$beside" || true; rm -f "$log"' EXIT

say "Tests on a Swarm of three nodes; those that need none run beside them, and are shown after them:"
$pytest -m lab || failed=$?
[ "$failed" -le 1 ] || exit "$failed"
tail -n +1 -f --pid="$beside" "$log"
wait "$beside" || failed=1
exit "$failed"
