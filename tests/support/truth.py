"""What ought to be registered against what is, id by id: no test of correctness trusts less.

`Stage` is one agent on one engine and one Consul, with the containers of one
test alone. What ought to be is computed from the engine's own inspect
documents by the bridge's pure functions; what is, is read from Consul's agent
and from the agent's own DNS and HTTP.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import dns.query
import dns.rdatatype
import pytest
from docker.errors import NotFound

from registrator.bridge.instances import instances
from registrator.catalog.consul import form
from registrator.engine.parse import parse_info, parse_inspect
from registrator.host import host
from registrator.model import PASSING, Instance
from registrator.policy import Constraint, Policy
from registrator.settings import Settings
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import Docker, unique

SECOND = 1.0  # the longest that anything may be wrong, once the engine is quiet
UNQUIET = 10  # looks at an engine that is told nothing any more, until it is quiet
NODE_IP = "192.0.2.1"
RUN = "registrator.test.run"  # the label that a stage's containers carry, and its agent selects by

T = TypeVar("T")
R = TypeVar("R")


class Stage:
    """One agent, one Consul, and containers that no other test sees.

    `engine_url` and `consul_url` are what the agent is told: the engine and
    the Consul themselves, or a proxy before them. `code` is Python that the
    agent's process runs before all else: it shortens a time limit, say.
    """

    def __init__(
        self,
        folder: Path,
        docker: Docker,
        consul: ConsulServer,
        *options: str,
        engine_url: str = "",
        consul_url: str = "",
        code: str = "",
    ) -> None:
        self.docker = docker
        self.consul = consul
        self.run = unique("run")
        self.containers: defaultdict[str, list[str]] = defaultdict(list)  # by service, the oldest first
        self._ports = itertools.count(20_000)
        self._folder = folder
        self._engine_url = engine_url or docker.url
        self._consul_url = consul_url or consul.url
        (folder / "sitecustomize.py").write_text(code)
        self._env = {"PYTHONPATH": f"{folder}:{Path.cwd()}"} if code else {}
        self.agents: list[AgentProcess] = []
        self.agent = self.another_agent(*options)

    def another_agent(self, *options: str) -> AgentProcess:
        """An agent on the same engine and Consul, not started."""
        folder = self._folder / f"agent-{len(self.agents)}"
        folder.mkdir()
        where = ("--docker", self._engine_url, "--consul", self._consul_url, "--ip", NODE_IP)
        agent = AgentProcess(folder, *where, "--constraint", f"{RUN}={self.run}", *options, env=self._env)
        self.agents.append(agent)
        return agent

    def close(self) -> None:
        """End the agents, and remove the containers: many at a time, for there may be hundreds."""
        for agent in self.agents:
            agent.close()
        at_once(self.docker.remove, [row["Id"] for row in self._rows(all=True)], 8)

    # Containers ---------------------------------------------------------------

    def start(self, service: str, **options: Any) -> str:
        """Run a container of a service, on a port number that is its own; return its id.

        It lives on the host's network unless `options` say otherwise: that
        takes the engine a quarter of the time.
        """
        labels = {RUN: self.run, "SERVICE_NAME": service, "SERVICE_PORT": str(next(self._ports))}
        labels |= options.pop("labels", {})
        if not options.keys() & {"networks", "ports", "network_mode"}:
            options["network_mode"] = "host"
        container = self.docker.run(labels=labels, **options)
        self.containers[service].append(container)
        return container

    def change(self, *services: str) -> None:
        """Kill the oldest container of each service, and start another in its stead."""
        for service in services:
            self.docker.kill(self.containers[service].pop(0))
            self.start(service)

    def churn(self, starts: Sequence[Mapping[str, Any]], workers: int) -> None:
        """Start each of `starts` (arguments of `start`), and kill one, the oldest first, after each start."""
        alive: queue.SimpleQueue[str] = queue.SimpleQueue()
        for container in itertools.chain(*self.containers.values()):
            alive.put(container)

        def one(options: Mapping[str, Any] | None) -> None:
            if options is not None:
                alive.put(self.start(**options))
            else:
                victim = alive.get()
                self.docker.kill(victim)
                next(ids for ids in self.containers.values() if victim in ids).remove(victim)

        at_once(one, [work for options in starts for work in (options, None)], workers)

    # Truth --------------------------------------------------------------------

    def desired(self) -> dict[str, Instance]:
        """What is to be registered now, from the engine's own documents."""
        policy = Policy(constraints=(Constraint(RUN, self.run),))
        here = host(parse_info(self.docker.api.info()), Settings(ips=(NODE_IP,)))
        found: dict[str, Instance] = {}
        for row in self._rows():
            try:
                container = parse_inspect(self.docker.inspect(row["Id"]))
            except NotFound:
                continue
            found |= {i.id: i for i in instances(container, here, policy)[0]}
        return found

    def _rows(self, **which: Any) -> list[dict[str, Any]]:
        """The engine's listing of this stage's containers."""
        return list(self.docker.api.containers(filters={"label": f"{RUN}={self.run}"}, **which))

    def registered(self) -> dict[str, Instance]:
        """What Consul's agent holds in the name of this engine."""
        owner = parse_info(self.docker.api.info()).id
        services = self.consul.get("/v1/agent/services")
        checks = self.consul.get("/v1/agent/checks")
        found = {key: form.instance(value, form.health_of(key, checks)) for key, value in services.items()}
        return {key: instance for key, instance in found.items() if instance.owner == owner}

    def differences(self, desired: Mapping[str, Instance]) -> list[str]:
        """How Consul, and the agent's answers, differ from what is desired: one line each."""
        told = self.differences_of_registrations(desired)
        return told or [line for name in sorted(self.containers) for line in self._misanswered(name, desired)]

    def differences_of_registrations(self, desired: Mapping[str, Instance]) -> list[str]:
        """The same of Consul alone, where others register services of the same names."""
        actual = self.registered()
        told = [f"missing {key}" for key in desired.keys() - actual.keys()]
        told += [f"stale {key}" for key in actual.keys() - desired.keys()]
        for key in desired.keys() & actual.keys():
            if _comparable(desired[key]) != _comparable(actual[key]):
                told.append(f"{key} is {_comparable(actual[key])}, not {_comparable(desired[key])}")
        return told

    def _misanswered(self, name: str, desired: Mapping[str, Instance]) -> Iterator[str]:
        """How the agent's DNS and HTTP answers on a name differ from what is desired."""
        alive = [
            i for i in desired.values() if i.service == name and (not i.health or i.health.status == PASSING)
        ]
        ports = {i.port for i in alive}
        if (answered := srv_ports(self.agent, name)) != ports:
            yield f"DNS has {sorted(answered)} for {name}, not {sorted(ports)}"
        entries = self.agent.get(f"/v1/health/service/{name}?passing")
        if (shown := {e["Service"]["ID"] for e in entries}) != {i.id for i in alive}:
            yield f"HTTP has {sorted(shown)} for {name}, not {sorted(i.id for i in alive)}"

    def settle(self, within: float = SECOND) -> float:
        """Wait until all is true, from when the engine is quiet; return after how many seconds it was.

        Fails, with every difference, when that takes longer than `within` seconds.
        """
        for _ in range(UNQUIET):
            began = time.monotonic()
            desired = self.desired()
            while (told := self._look(desired)) and time.monotonic() < began + within:
                time.sleep(0.01)
            took = time.monotonic() - began
            if desired == self.desired():  # else the engine is still at work on what it was told
                break
        else:
            pytest.fail("the engine does not get quiet")
        if told:
            counts = f"{len(desired)} desired, {len(told)} differ after {within:g} s"
            pytest.fail("\n".join([counts, *told[:20], self.agent.log[-3000:]]), pytrace=False)
        print(f"{len(desired)} instances, 0 missing, 0 stale after {took:.2f} s")  # noqa: T201 - shown by -rP
        return took

    def _look(self, desired: Mapping[str, Instance]) -> list[str]:
        try:
            return self.differences(desired)
        except OSError as error:
            return [f"no answer: {error}"]

    @contextmanager
    def lookups_going_on(self, name: str) -> Iterator[list[float]]:
        """Ask DNS for a name all the time: it must be answered, at once and with addresses.

        Yields the seconds that each answer took, for who wants to know more.
        """
        over = threading.Event()
        took: list[float] = []
        wrong: list[str] = []

        def ask() -> None:
            while not over.wait(0.02):
                began = time.monotonic()
                try:
                    if (answer := self.agent.ask(name))[0].isalpha():
                        wrong.append(answer[0])
                except OSError as error:
                    wrong.append(repr(error))
                took.append(time.monotonic() - began)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield took
        finally:
            over.set()
            thread.join()
        assert took
        assert not wrong, f"{len(wrong)} of {len(took)} lookups failed: {wrong[:3]}"
        assert max(took) < SECOND


def _comparable(instance: Instance) -> tuple[Instance, str]:
    """What of an instance must be the same; a health check's output follows with its next change."""
    addresses = tuple(sorted(instance.addresses, key=lambda address: address.key))  # Consul has no order
    return replace(
        instance, checks=(), health=None, addresses=addresses
    ), instance.health.status if instance.health else ""


def srv_ports(agent: AgentProcess, name: str) -> set[int]:
    """The ports that the agent's DNS has for a service, over TCP."""
    query = dns.message.make_query(f"{name}.service.consul", "SRV")
    reply = dns.query.tcp(query, "127.0.0.1", port=agent.dns_port, timeout=5)
    found = (record for answer in reply.answer for record in answer)
    return {record.port for record in found if record.rdtype == dns.rdatatype.SRV}


def at_once(work: Callable[[T], R], items: Iterable[T], workers: int) -> list[R]:
    """Do `work` on each item, `workers` at a time; raises what any of it raised."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))
