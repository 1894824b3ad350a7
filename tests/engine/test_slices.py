"""Long documents of the engine: decoded in slices, and taken in as far as there are limits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from registrator import parts
from registrator.engine import DockerEngine, slices
from registrator.engine.parse import parse_inspect, parse_listed
from registrator.engine.slices import decoded
from registrator.limits import BINDINGS, ENVIRONMENT, LABELS, NETWORKS, PORT_BINDINGS, PORTS
from registrator.model import Container
from registrator.stats import Stats
from tests.engine.documents import ID, inspected, listed, network
from tests.engine.fake import fake_engine, http

EXPOSED = [f"{number}/{protocol}" for protocol in ("tcp", "udp") for number in range(1, 65536)]


def compact(document: object) -> str:
    """As an engine writes it."""
    return json.dumps(document, separators=(",", ":"))


@pytest.mark.parametrize(
    "document",
    [
        inspected(config={"ExposedPorts": {key: {} for key in EXPOSED}}, ports=dict.fromkeys(EXPOSED)),
        inspected(config={"Labels": {f"label{n}": "x" * 50 for n in range(20_000)}}),
        inspected(config={"Labels": {f"label{n}": "}," * 20 for n in range(10_000)}}),
        inspected(config={"Labels": {f"label{n}": "," for n in range(20_000)}}),
        inspected(config={"Env": [f"E{n}=x" for n in range(60_000)]}),
        inspected(networks={f"n{n}": network(f"n{n}", "10.0.0.1") for n in range(5_000)}),
    ],
    ids=["ports", "labels", "labels like ends", "commas", "environment", "networks"],
)
async def test_others_have_their_turn_while_a_long_document_is_decoded(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slice has more than some thousand characters, wherever in the document it is long."""
    monkeypatch.setattr(slices, "SLICE", 0.0)
    text = compact(document)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await decoded(text.encode()) == document
    task.cancel()
    assert turns > len(text) / (4 * parts.PART)


async def test_a_long_element_of_a_listing_is_decoded_in_slices(tmp_path: Path) -> None:
    """A container with every port is listed, while others have their turn."""
    ports = [{"PrivatePort": n, "Type": kind} for kind in ("tcp", "udp") for n in range(1, 65536)]
    wide = listed(Id="b" * 64, Ports=ports)
    text = compact([listed(), wide, listed()])
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with (
        fake_engine(tmp_path, {"/containers/json": http(text)}) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
    ):
        task = asyncio.create_task(other())
        found = await engine.containers()
        task.cancel()
    assert [container.id for container in found] == [ID, "b" * 64, ID]
    assert turns > len(text) / (4 * parts.PART)


# What is taken in ---------------------------------------------------------


def limits_of(container: Container) -> list[str]:
    return [problem.limit for problem in container.refused]


def test_an_image_that_exposes_every_port_has_the_first_ones() -> None:
    """Published ports come first: 9000 here."""
    ports = dict.fromkeys(EXPOSED) | {"9000/tcp": [{"HostIp": "", "HostPort": "80"}]}
    container = parse_inspect(
        inspected(config={"ExposedPorts": {k: {} for k in sorted(EXPOSED)}}, ports=ports)
    )
    numbers = [port.number for port in container.ports]
    assert len(numbers) == PORTS.value
    assert numbers == sorted(numbers)
    assert [port.number for port in container.ports if port.bindings] == [9000]
    assert numbers[-2] < 1024
    assert limits_of(container) == ["ports"]


def test_bindings_of_a_port_and_of_all_ports_have_a_limit() -> None:
    at = [{"HostIp": "0.0.0.0", "HostPort": str(port)} for port in range(1, 1001)]
    container = parse_inspect(inspected(ports={f"{n}/tcp": at for n in range(1, 101)}))
    counts = [len(port.bindings) for port in container.ports]
    assert max(counts) == PORT_BINDINGS.value
    assert sum(counts) == BINDINGS.value


def test_networks_variables_and_labels_have_a_limit() -> None:
    document = inspected(
        config={
            "Env": [f"E{n}=x" for n in range(9000)],
            "Labels": {f"l{n}": "x" for n in range(9000)},
        },
        networks={f"n{n:04}": network(f"n{n}", "10.0.0.1") for n in range(1000)},
    )
    container = parse_inspect(document)
    assert len(container.env) == ENVIRONMENT.value
    assert len(container.labels) == LABELS.value + 1, "that they are too many must still be seen"
    assert [place.network for place in container.networks] == [f"n{n:04}" for n in range(NETWORKS.value)]
    assert limits_of(container) == ["networks", "environment"]


def test_long_names_are_cut_and_stay_apart() -> None:
    config = {
        "Image": "i" * 9000,
        "Hostname": "h" * 9000,
        "Labels": {"com.docker.compose.service": "s" * 9000, "com.docker.swarm.service.name": "s" * 9000}
        | {"com.docker.swarm.task.id": "t" * 9000},
    }
    long = inspected(config=config, networks={"n" * 9000: network("n" * 9000, "10.0.0.1")})
    one, other = (parse_inspect({**long, "Id": letter * 64, "Name": "/" + "c" * 9000}) for letter in "ab")
    assert one.name != other.name
    assert len(repr(one)) < 30_000


def test_a_listing_with_every_port_costs_no_more_than_their_number() -> None:
    """What a running container's ports are does not change; how many there are is compared."""
    ports = [{"PrivatePort": n, "Type": "tcp"} for n in range(1, 60_001)]
    one, other = parse_listed(listed(Ports=ports)), parse_listed(listed(Ports=ports[::-1]))
    assert one == other
    assert one != parse_listed(listed(Ports=ports[1:]))
    renumbered = [{"PrivatePort": n + 1, "Type": "tcp"} for n in range(1, 60_001)]
    assert one == parse_listed(listed(Ports=renumbered)), "the ports themselves are not read"
