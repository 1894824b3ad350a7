"""Three Consul servers on loopback, each on ports of its own, that elect a leader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.consul import ConsulServer
from tests.support.engine import wait_for


@contextmanager
def cluster(folder: Path, size: int = 3) -> Iterator[list[ConsulServer]]:
    """As many servers, with a leader; all end with the context."""
    servers: list[ConsulServer] = []
    try:
        for number in range(size):
            home = folder / f"consul-{number}"
            home.mkdir()
            config = {
                "node_name": f"consul-{number}",
                "server": True,
                "bootstrap_expect": size,
                "retry_join": [f"127.0.0.1:{server.ports['serf_lan']}" for server in servers],
                "retry_interval": "1s",
                "performance": {"raft_multiplier": 1},
            }
            server = ConsulServer(home, config, persistent=True)
            server.choose_ports()
            server.launch()
            servers.append(server)
        wait_for(lambda: all(_has_leader(server) for server in servers), "leader of the cluster", 30)
        yield servers
    finally:
        for server in servers:
            server.kill()


def _has_leader(server: ConsulServer) -> bool:
    try:
        return bool(server.get("/v1/status/leader"))
    except OSError:
        return False
