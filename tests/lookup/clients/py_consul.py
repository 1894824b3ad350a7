"""What PyPI's py-consul makes of each call, as JSON; then it waits by index for a change, and tells it."""

import json
import sys
from urllib.parse import urlsplit

import consul

where = urlsplit(sys.argv[1])
api = consul.Consul(host=where.hostname, port=where.port)
name = sys.argv[2]
node = api.catalog.nodes()[1][0]["Node"]
index, health = api.health.service(name, passing=True, tag="a", near="_agent")
told = {
    "health": health,
    "service": api.catalog.service(name, near="_agent")[1],
    "checks": api.health.checks(name)[1],
    "state": api.health.state("passing")[1],
    "node": api.catalog.node(node)[1]["Services"],
    "its checks": api.health.node(node)[1],
    "own": api.agent.services(),
    "services": api.catalog.services()[1],
    "datacenters": api.catalog.datacenters(),
    "where": api.agent.self()["Config"]["Datacenter"],
    "leaders": len(api.status.leader().split(":")),
    "peers": len(api.status.peers()),
}
print(json.dumps(told), flush=True)
later, after = api.health.service(name, index=index, wait="30s")
print(json.dumps({"later": int(later) > int(index), "status": after[0]["Checks"][1]["Status"]}))
