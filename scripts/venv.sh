#!/usr/bin/env bash
# Makes the virtual environment .venv of what requirements-dev.lock pins, each
# file by its hash, and does nothing where it was made from the same words before.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/made-from
# A client of Consul that a test points at the agent. It lies aside: its package has the name of python-consul2's.
client=tests/lookup/clients/requirements.lock
install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps)

wanted=$(sha256sum pyproject.toml requirements-dev.lock "$client")
if .venv/bin/python -c '' 2>/dev/null && [[ $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
    exit
fi
have "$python" || die "no $python here; install Python 3.11 or later, or name it: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is older than 3.11; name a newer one: make PYTHON=/path/to/python3"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    may_install || die "$python has no venv; install the package python3-venv"
    step "Python: installing Debian's python3-venv" apt_install python3-venv || die "python3-venv could not be installed"
fi
step "Python: making the virtual environment .venv" "$python" -m venv .venv || die "$python -m venv .venv failed; see above"
step "Python: installing what requirements-dev.lock pins" "${install[@]}" --require-hashes -r requirements-dev.lock ||
    die "pip could not install the dependencies; see above"
step "Python: installing this checkout" "${install[@]}" --no-build-isolation --no-index --editable . ||
    die "pip could not install the checkout; see above"
step "Python: installing py-consul for a test" \
    "${install[@]}" --require-hashes --upgrade --target .venv/consul-client -r "$client" ||
    die "pip could not install py-consul; see above"
printf '%s\n' "$wanted" >"$stamp"
