#!/usr/bin/env bash
# Installs what the tests use beside Python, Docker and Consul. Where that cannot
# be done (not root, not Debian) it says what is missing and goes on: the tests
# that need it are skipped, or fail under REGISTRATOR_REQUIRE_ALL.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# A command and the Debian package that brings it.
tools=(
    dig:bind9-dnsutils
    dnsperf:dnsperf
    ip:iproute2
    busybox:busybox-static
    unbound:unbound
    dnsmasq:dnsmasq-base
    named:bind9
    musl-gcc:musl-tools
    jq:jq
    systemd-analyze:systemd
    promtool:prometheus
    chromium:chromium
    chromedriver:chromium-driver
)

# install PACKAGE...: without their daemons, which Debian's packages start: a test starts what it needs itself.
install() {
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt_install "$@"
}

missing=()
for tool in "${tools[@]}"; do
    have "${tool%%:*}" || missing+=("${tool#*:}")
done
# The dynamic busybox does not run in an image that holds nothing else.
if have busybox && ldd "$(command -v busybox)" >/dev/null 2>&1; then
    missing+=(busybox-static)
fi
if [[ ${#missing[@]} = 0 ]]; then
    exit
fi
if may_install; then
    step "Tests: installing ${missing[*]}" install "${missing[@]}" || die "could not install ${missing[*]}; see above"
else
    say "Tests: ${missing[*]} missing here; what needs them is skipped"
fi
