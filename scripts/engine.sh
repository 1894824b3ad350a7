#!/usr/bin/env bash
# Makes sure that a Docker engine answers: uses the one that does, else, as root
# on Debian, installs docker.io and starts it (by systemd where that runs the
# machine, else by hand).
#
#   engine.sh          see to it that an engine answers
#   engine.sh compose  ... and that `docker compose` or docker-compose is there
#   engine.sh stop     stop the daemon that an earlier run started by hand, unless
#                      containers of somebody else run on it
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

pidfile=$CACHE/dockerd.pid
logfile=$CACHE/dockerd.log

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# ours PID: whether that process is still the daemon that was started here.
ours() { [[ $(cat "/proc/$1/comm" 2>/dev/null) == dockerd ]]; }

install_engine() {
    # Since trixie the command-line client is a package of its own.
    apt_install docker.io && { have docker || apt_install docker-cli; }
}

start_by_hand() {
    mkdir -p "$CACHE"
    setsid dockerd >"$logfile" 2>&1 </dev/null &
    local pid=$!
    for _ in {1..300}; do
        if answers; then
            echo "$pid" >"$pidfile"
            return
        fi
        ours "$pid" || [[ -d /proc/$pid ]] || break
        sleep 0.1
    done
    tail -n 5 "$logfile"
    return 1
}

ensure_engine() {
    if have docker && answers; then
        return
    fi
    if [[ -n ${DOCKER_HOST:-} ]]; then
        die "no engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST to use one on this machine"
    fi
    if [[ $(id -u) != 0 && -S /var/run/docker.sock && ! -w /var/run/docker.sock ]]; then
        die "user $(id -un) may not use /var/run/docker.sock; run as root, or join the group: usermod -aG docker $(id -un)"
    fi
    may_install || die "no Docker engine answers here; install and start one (https://docs.docker.com/engine/install/)"
    if ! have dockerd || ! have docker; then
        step "Docker: installing Debian's docker.io" install_engine || die "docker.io could not be installed; see above"
        # The package starts the engine itself where systemd runs the machine.
        if answers; then return; fi
    fi
    if [[ -d /run/systemd/system ]]; then
        step "Docker: starting the engine by systemd" systemctl start docker ||
            die "the engine did not start; see: journalctl -u docker"
    else
        step "Docker: starting the engine by hand (log: $logfile)" start_by_hand ||
            die "the engine did not start; see $logfile"
    fi
}

ensure_compose() {
    if docker compose version >/dev/null 2>&1 || have docker-compose; then
        return
    fi
    may_install || die "neither docker compose nor docker-compose is here; install one (https://docs.docker.com/compose/install/)"
    step "Docker: installing Debian's docker-compose" apt_install docker-compose ||
        die "docker-compose could not be installed; see above"
}

stop_engine() {
    local pid
    pid=$(cat "$pidfile" 2>/dev/null) || return 0
    if ! ours "$pid"; then
        rm -f "$pidfile"
        return
    fi
    if [[ -n $(docker ps --quiet) ]]; then
        say "Docker: the engine that was started here stays, since other containers run on it"
        return
    fi
    step "Docker: stopping the engine that was started here" end "$pid" ||
        die "the engine (process $pid) does not stop; see $logfile"
    rm -f "$pidfile"
}

end() {
    kill "$1"
    for _ in {1..300}; do
        ours "$1" || return 0
        sleep 0.1
    done
    return 1
}

case ${1:-} in
"") ensure_engine ;;
compose) ensure_engine && ensure_compose ;;
stop) stop_engine ;;
*) die "engine.sh knows compose and stop, not $1" ;;
esac
