#!/usr/bin/env bash
# Every test but the lab's outages. The lab's spend their time waiting for a
# Swarm, so what needs no engine runs beside them, behind them in the queue for
# the processor, and so does what waits for a minute; what needs an engine and
# no Swarm comes then.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=lib.sh
. scripts/lib.sh

pytest=.venv/bin/pytest
log=$(mktemp)
failed=0

nice $pytest -p no:cacheprovider -m "not lab and (patient or not (engine or demo or browser))" >"$log" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null || true; rm -f "$log"' EXIT

say "Tests on a Swarm of three nodes, and beside them those that need no engine:"
$pytest -m "lab and not outage" || failed=1
wait "$beside" || failed=1
cat "$log"
say "Tests on one engine:"
$pytest -m "not lab and not patient and (engine or demo or browser)" || failed=1
exit $failed
