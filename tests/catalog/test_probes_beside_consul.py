"""The same checks on the same servers, run by us and by a real Consul: the same results.

Words differ only where Go's and Python's reasons for a failure do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from aiohttp import web

from registrator.catalog.embedded import EmbeddedCatalog
from registrator.model import CRITICAL, PASSING, WARNING, Check, Instance, Node
from registrator.stats import Stats
from tests.catalog.grpc_servers import STATUSES, health_server
from tests.catalog.servers import answer, eventually, self_signed, serving
from tests.support.consul import ConsulServer

pytestmark = pytest.mark.consul

Result = tuple[str, str]


class Both:
    """One instance with the same checks in our catalog and in a Consul agent."""

    numbers = count()

    def __init__(self, ours: EmbeddedCatalog, consul: ConsulServer) -> None:
        self._ours, self._consul = ours, consul
        self._id = f"beside-{next(self.numbers)}"

    async def register(self, *checks: Check) -> None:
        await self._ours.register(Instance(self._id, self._id, "127.0.0.1", 80, checks=checks))
        document = {
            "ID": self._id,
            "Name": self._id,
            "Port": 80,
            "Checks": [in_consuls_form(c) for c in checks],
        }
        path = "/v1/agent/service/register?replace-existing-checks=true"
        await asyncio.to_thread(self._consul.put, path, document)

    async def deregister(self) -> None:
        await self._ours.deregister(self._id)
        await asyncio.to_thread(self._consul.put, f"/v1/agent/service/deregister/{self._id}")

    def our_results(self) -> dict[str, Result]:
        registered = self._ours._registered[self._id]
        return {check.definition.id: (check.status, check.output) for check in registered.checks.values()}

    async def consuls_results(self) -> dict[str, Result]:
        checks = (await asyncio.to_thread(self._consul.get, "/v1/agent/checks")).values()
        return {c["CheckID"]: (c["Status"], c["Output"]) for c in checks if c["ServiceID"] == self._id}

    async def results_when(self, done: Any) -> tuple[dict[str, Result], dict[str, Result]]:
        """Both sides' results as soon as `done(results)` holds of each."""
        await eventually(lambda: done(self.our_results()))
        async with asyncio.timeout(15):
            while not done(theirs := await self.consuls_results()):
                await asyncio.sleep(0.05)
        return self.our_results(), theirs


def in_consuls_form(check: Check) -> dict[str, Any]:
    document: dict[str, Any] = {"CheckID": check.id, "Name": check.name, "Status": check.status}
    if check.kind == "ttl":
        return document | {"TTL": f"{check.ttl}s"}
    return document | {
        check.kind.upper(): check.target,
        "Interval": f"{check.interval}s",
        "Timeout": f"{check.timeout}s",
        "Method": check.method,
        "Body": check.body,
        "Header": {name: list(values) for name, values in check.header},
        "TLSSkipVerify": check.tls_skip_verify,
        "GRPCUseTLS": check.grpc_use_tls,
        "SuccessBeforePassing": check.success_before_passing,
        "FailuresBeforeCritical": check.failures_before_critical,
    }


@pytest.fixture
async def both(consul_shared: ConsulServer) -> AsyncIterator[Both]:
    async with EmbeddedCatalog(Stats()) as ours:
        ours.identify(Node("n", "127.0.0.1"))
        running = asyncio.create_task(ours.run())
        both = Both(ours, consul_shared)
        yield both
        await both.deregister()
        running.cancel()
        await asyncio.wait([running])


def table(base: str, tls: str) -> list[Check]:
    """One check for each kind of server; the id says which it is."""
    codes = (200, 201, 204, 299, 304, 400, 404, 429, 500, 503)
    targets = {
        **{f"answers {code}": f"{base}/{code}" for code in codes},
        **{f"body is {path}": f"{base}/{path}" for path in ("long", "bytes", "cut", "endless")},
        "redirects": f"{base}/moved",
        "fails: redirects without end": f"{base}/round",
        "fails: no answer": f"{base}/slow",
        "fails: refused": "http://127.0.0.1:1/",
        "fails: no URL": "nonsense",
        "fails: unknown certificate": f"{tls}/200",
    }
    port = base.rpartition(":")[2]
    tcp = {"tcp open": f"127.0.0.1:{port}", "tcp refused": "127.0.0.1:1", "tcp, no port": "127.0.0.1",
           "fails: tcp, no name": "no.such.invalid:80"}  # fmt: skip
    return [
        *(Check(name, name, "http", target, 1.0, 0.5) for name, target in targets.items()),
        *(Check(name, name, "tcp", target, 1.0, 0.5) for name, target in tcp.items()),
        Check("skips verification", "tls", "http", f"{tls}/200", 1.0, 0.5, tls_skip_verify=True),
        Check(
            "posts",
            "p",
            "http",
            f"{base}/200",
            1.0,
            0.5,
            method="POST",
            body="x",
            header=(("A", ("b", "c")),),
        ),
    ]


async def test_the_same_servers_have_the_same_results(both: Both, tmp_path: Path) -> None:
    """Status and output are Consul's for every kind of answer; for failures the status and its beginning."""
    async with serving(answer) as base, serving(answer, tls=self_signed(tmp_path)) as tls:
        checks = table(base, tls)
        await both.register(*checks)
        ours, theirs = await both.results_when(lambda results: all(output for _, output in results.values()))
        await both.deregister()
    assert ours.keys() == theirs.keys() == {check.id for check in checks}
    for name in ours:
        status, output = theirs[name]
        if name.startswith("fails"):
            assert ours[name] == (status, ANY), name
        else:
            assert ours[name] == (status, output), name
    assert ours["fails: refused"] == theirs["fails: refused"]


def grpc_table(plain: str, tls: str, without: str) -> list[Check]:
    """One gRPC check for each kind of answer; the id says which it is."""
    targets = {
        **{f"service {service!r}": f"{plain}/{service}" for service in STATUSES},
        "as a whole": plain,
        "unknown service": f"{plain}/nobody",
        "refused by the service": f"{plain}/abort 7 who are you?",
        "no answer": f"{plain}/slow",
        "no health service": without,
        "nobody there": "127.0.0.1:1",
        "no port": "127.0.0.1",
        "fails: no TLS": tls,
        "fails: no name": "no.such.invalid:80",
    }
    encrypted = {"skips verification": tls, "down": f"{tls}/down"}
    return [
        *(Check(name, name, "grpc", target, 1.0, 0.5) for name, target in targets.items()),
        *(
            Check(name, name, "grpc", target, 1.0, 0.5, grpc_use_tls=True, tls_skip_verify=True)
            for name, target in encrypted.items()
        ),
        Check("fails: unknown certificate", "c", "grpc", tls, 1.0, 0.5, grpc_use_tls=True),
        Check("fails: TLS unknown", "c", "grpc", plain, 1.0, 0.5, grpc_use_tls=True, tls_skip_verify=True),
    ]


async def test_the_same_grpc_servers_have_the_same_results(both: Both, tmp_path: Path) -> None:
    """Status and output of gRPC checks are Consul's; where TLS or a name fails, the status.

    Of a server that hangs up Go's gRPC says this or that, by which of its parts notices first.
    """
    self_signed(tmp_path)
    with health_server() as plain, health_server(tls=tmp_path) as tls, health_server(servicer=None) as bare:
        checks = grpc_table(plain, tls, bare)
        await both.register(*checks)
        ours, theirs = await both.results_when(lambda results: all(output for _, output in results.values()))
        await both.deregister()
    assert ours.keys() == theirs.keys() == {check.id for check in checks}
    for name, (status, output) in theirs.items():
        assert ours[name] == (status, ANY if name.startswith("fails") else output), name


async def test_thresholds_are_counted_alike(both: Both) -> None:
    """After each of the same answers in a row the status is the same, the first one included."""
    codes = (200, 500, 500, 200, 200, 200)
    ours: list[str] = []
    theirs: list[str] = []

    async def answer_in_turn(request: web.Request) -> web.Response:
        """Note the status that the earlier answers led to, then give the next."""
        if request.headers["User-Agent"].startswith("registrator/"):
            seen, results = ours, both.our_results()
        else:
            seen, results = theirs, await both.consuls_results()
        seen.append(results["c"][0])
        return web.Response(status=codes[min(len(seen), len(codes)) - 1])

    async with serving(answer_in_turn) as base:
        await both.register(
            Check("c", "c", "http", base, 1.0, success_before_passing=2, failures_before_critical=2)
        )
        await eventually(lambda: min(len(ours), len(theirs)) >= len(codes), within=15)
        await both.deregister()
    statuses = [CRITICAL, PASSING, PASSING, CRITICAL, CRITICAL, PASSING]  # the first is the initial one
    assert ours[: len(codes)] == theirs[: len(codes)] == statuses


async def test_a_new_registration_keeps_the_same(both: Both) -> None:
    """A check of a known id keeps status and output, whatever else its definition says now."""
    async with serving(answer) as base:
        check = Check("c", "c", "http", f"{base}/200", 1.0, 5.0)
        await both.register(check)
        ours, theirs = await both.results_when(lambda results: results["c"][0] == PASSING)
        assert ours == theirs
        for changed in (
            check,
            replace(check, interval=60.0),
            replace(check, target=f"{base}/slow"),
            replace(check, target=f"{base}/slow", status=WARNING),
            Check("c", "c", "ttl", ttl=60.0),
        ):
            await both.register(changed)
            assert both.our_results() == await both.consuls_results() == ours, changed
        await both.register(replace(check, id="other", target=f"{base}/slow", status=WARNING))
        assert both.our_results() == await both.consuls_results() == {"other": (WARNING, "")}
        await both.deregister()


async def test_ttls_expire_alike(both: Both) -> None:
    """A TTL check that nobody refreshes is critical with the same output."""
    await both.register(Check("c", "c", "ttl", ttl=0.5, status=PASSING))
    ours, theirs = await both.results_when(lambda results: results["c"][0] == CRITICAL)
    assert ours == theirs == {"c": (CRITICAL, "TTL expired")}
