#!/usr/bin/env bash
# Keys, certificates and ACL tokens of the Consul in compose/stack.yml. On a manager:
#
#   compose/consul.sh secrets   before the stack is deployed: makes them all, as Docker secrets
#   compose/consul.sh tokens    once it runs: makes Consul accept the tokens, and prints that of its operator
#
# No secret is written to a disk that stays, nor into a command line, which others on the machine can read.
# docs/swarm.md tells what each is for, and how to change them.
set -euo pipefail
umask 077
cd "$(dirname "$0")"

image=${CONSUL_IMAGE:-hashicorp/consul:1.15}
stack=${STACK:-demo}
api=http://127.0.0.1:8500/v1
days=3650

# secret NAME: makes a Docker secret of the standard input.
secret() {
    docker secret create "$1" - >/dev/null
    echo "secret $1"
}

secrets() {
    local folder gossip
    folder=$(mktemp -d -p /dev/shm)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    docker run --rm --network none --entrypoint sh "$image" -ec "
        mkdir /tmp/tls; cd /tmp/tls
        consul tls ca create -days=$days >/dev/null
        consul tls cert create -server -days=$days >/dev/null
        rm consul-agent-ca-key.pem
        tar c *.pem" | tar x -C "$folder"
    gossip=$(docker run --rm --network none --entrypoint consul "$image" keygen)
    secret consul-ca.pem <"$folder/consul-agent-ca.pem"
    secret consul-cert.pem <"$folder/dc1-server-consul-0.pem"
    secret consul-key.pem <"$folder/dc1-server-consul-0-key.pem"
    printf '{"encrypt": "%s", "acl": {"tokens": {"agent": "%s"}}}\n' "$gossip" "$(uuid)" | secret consul.json
    uuid | secret registrator-manager
    uuid | secret registrator-worker
}

uuid() { cat /proc/sys/kernel/random/uuid; }

tokens() {
    local container management=${CONSUL_HTTP_TOKEN:-}
    container=$(wait_for_container)
    if [ -z "$management" ]; then
        management=$(bootstrap)
        echo "Consul's management token, for its UI and its operator; it is shown this once: $management"
    fi
    accept consul "$(docker exec "$container" sed -n 's/.*"agent": "\([^"]*\)".*/\1/p' /run/secrets/consul.json)"
    accept registrator-manager "$(docker exec "$container" cat /run/secrets/registrator-manager)"
    accept registrator-worker "$(docker exec "$container" cat /run/secrets/registrator-worker)"
}

# wait_for_container: prints this node's container of Consul, which the stack starts just now.
wait_for_container() {
    local found
    for _ in {1..60}; do
        found=$(docker ps --quiet --filter "label=com.docker.swarm.service.name=${stack}_consul")
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
        sleep 1
    done
    die "no container of ${stack}_consul runs on this node; is it a manager with the stack?"
}

# bootstrap: begins with ACLs, as soon as the servers have a leader; prints the management token.
bootstrap() {
    local answer
    for _ in {1..60}; do
        answer=$(curl -s --noproxy '*' -X PUT "$api/acl/bootstrap" || true)
        case $answer in
        *SecretID*)
            sed 's/.*"SecretID": *"\([^"]*\)".*/\1/' <<<"$answer"
            return
            ;;
        *"no longer allowed"*) die "that was done before; give its token: CONSUL_HTTP_TOKEN=... $0 tokens" ;;
        esac
        sleep 1
    done
    die "Consul has no leader after a minute: ${answer:-it does not answer at $api}"
}

# accept NAME TOKEN: makes the policy NAME, and a token with it. Those that are there stay.
accept() {
    local rules
    rules=$(sed 's/"/\\"/g' "policies/$1.hcl" | sed 's/$/\\n/' | tr -d '\n')
    put acl/policy "{\"Name\": \"$1\", \"Rules\": \"$rules\"}"
    put acl/token "{\"SecretID\": \"$2\", \"Description\": \"$1\", \"Policies\": [{\"Name\": \"$1\"}]}"
    echo "token and policy $1"
}

# put PATH DOCUMENT: with the management token, which goes to curl on a descriptor.
put() {
    local answer
    answer=$(curl -s --noproxy '*' -X PUT -H @<(echo "X-Consul-Token: $management") -d @- "$api/$1" <<<"$2")
    case $answer in
    {* | *already*) ;;
    *) die "Consul refused $1: $answer" ;;
    esac
}

die() {
    echo "error: $*" >&2
    exit 1
}

case ${1:-} in
secrets | tokens) "$1" ;;
*) die "usage: $0 secrets|tokens" ;;
esac
