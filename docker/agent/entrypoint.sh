#!/bin/sh
# The image's `registrator`: runs the real one as a user that is not root,
# wherever the Docker socket lets that user in by its group or by its mode.
#
# Of the capabilities the user keeps two, and those only where the container was
# given them: NET_ADMIN (--dns-link-local puts an address on the loopback) and
# NET_BIND_SERVICE (port 53).
set -eu

# docker_url ARGUMENT...: what the agent will take for its engine.
docker_url() {
    url=${REGISTRATOR_DOCKER:-${DOCKER_HOST:-unix:///var/run/docker.sock}}
    previous=
    for argument in "$@"; do
        [ "$previous" != --docker ] || url=$argument
        case $argument in --docker=*) url=${argument#--docker=} ;; esac
        previous=$argument
    done
    echo "$url"
}

# granted BIT: whether the container's bounding set has that capability.
granted() {
    bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
    [ $((0x$bounding >> $1 & 1)) = 1 ]
}

# gliderlabs/registrator's users mount the engine's socket there.
if [ -z "${REGISTRATOR_DOCKER:-}${DOCKER_HOST:-}" ] && [ ! -S /var/run/docker.sock ] && [ -S /tmp/docker.sock ]; then
    export DOCKER_HOST=unix:///tmp/docker.sock
fi
socket=$(docker_url "$@")
socket=${socket#unix://}
set -- /opt/registrator/bin/python3 -m registrator "$@"

if [ "$(id -u)" != 0 ]; then
    exec "$@"
fi

groups=--clear-groups
if [ -S "$socket" ]; then
    mode=$(stat -c %a "$socket")
    case $mode in
    *[67]) ;; # everybody may read and write
    *[67]?) groups="--groups=$(stat -c %g "$socket")" ;;
    *)
        echo "registrator: running as root, since $socket (mode $mode) lets in nobody else; to change that: chmod 660" >&2
        exec "$@"
        ;;
    esac
fi

export HOME=/ # root's may not even be looked into
capabilities=
if granted 12; then capabilities=,+net_admin; fi
if granted 10; then capabilities=$capabilities,+net_bind_service; fi
exec setpriv --reuid=registrator --regid=registrator "$groups" --no-new-privs \
    --inh-caps="-all$capabilities" --ambient-caps="-all$capabilities" --bounding-set="-all$capabilities" "$@"
