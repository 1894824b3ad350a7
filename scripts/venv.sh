#!/usr/bin/env bash
# Makes the virtual environment .venv with everything that pyproject.toml asks
# for, and does nothing where it was made from the same words before.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/made-from
# A client of Consul that a test points at the agent. It lies aside: its package has the name of python-consul2's.
client=py-consul==1.8.0

wanted=$(printf '%s\n' "$client" | sha256sum - pyproject.toml)
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
step "Python: installing what pyproject.toml asks for" \
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' ||
    die "pip could not install the dependencies; see above"
step "Python: installing $client for a test" \
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/consul-client "$client" ||
    die "pip could not install $client; see above"
printf '%s\n' "$wanted" >"$stamp"
