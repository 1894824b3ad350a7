"""compose/stack.yml, deployed as it is on three nodes."""

from __future__ import annotations

import re

import pytest

from scripts.demo.proof import GREETING
from scripts.lab.lab import Lab
from tests.lab.services import LINK_LOCAL, STORIES, TOOLS
from tests.lab.truth import agree, count, get

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

VISIT = "curl -sSf"


def test_every_task_is_in_catalog_and_lookups_of_every_node(lab: Lab) -> None:
    """Each by one registration, and nothing else is there, though Consul and agents are tasks as well."""
    running = agree(lab)
    assert {service: count(running, service) for service in STORIES} == STORIES
    assert {name for name, _, _ in running} == set(STORIES)
    for node in lab.nodes:
        assert set(get(node, 8500, "/v1/catalog/services")) == {*STORIES, "consul"}


def test_consul_has_three_servers_and_its_ui(lab: Lab) -> None:
    for node in lab.nodes:
        assert len(get(node, 8500, "/v1/status/peers")) == 3
        page = node.run("curl", "-s", f"http://{node.address}:8500/ui/")
        assert "<html" in page.lower()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_container_finds_every_service_by_name_on_every_node(lab: Lab, number: int) -> None:
    """Through Docker's own resolver and the link-local address; what it is told it can connect to."""
    node = lab.nodes[number - 1]
    lookups = "; ".join(f"getent hosts {service}.service.consul" for service in STORIES)
    inside = ("run", "--rm", "--network", "demo_backend", "--dns", LINK_LOCAL, TOOLS)
    assert len(node.docker(*inside, "sh", "-ec", lookups).splitlines()) >= len(STORIES)
    visits = f"{VISIT} http://whoami.service.consul:8000; {VISIT} http://web.service.consul:8000"
    said = node.docker(*inside, "sh", "-ec", visits)
    assert re.search(GREETING.pattern, said), said


def test_the_count_is_one_for_all_five(lab: Lab) -> None:
    """Five counters on three nodes count in the one Redis that each finds by its name."""
    loop = f"for i in 1 2 3 4 5 6 7 8 9 10; do {VISIT} http://web.service.consul:8000; done"
    inside = ("run", "--rm", "--network", "demo_backend", "--dns", LINK_LOCAL, TOOLS)
    visits = GREETING.findall(lab.nodes[1].docker(*inside, "sh", "-ec", loop))
    counts = [int(number) for number, _ in visits]
    assert counts == list(range(counts[0], counts[0] + 10))
    assert len({host for _, host in visits}) > 1


def test_a_node_itself_finds_what_is_published(lab: Lab) -> None:
    """By SRV on port 8053 of any node: addresses of nodes and the ports chosen there, which answer."""
    for node in lab.nodes:
        for turn in range(STORIES["web"]):
            address, port = node.call(node.front.endpoint, "web", turn)
            assert GREETING.fullmatch(node.run("curl", "-sSf", f"http://{address}:{port}/").strip())
