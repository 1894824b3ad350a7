"""From Docker's event to the catalog and to DNS: one container after the other, each seen from outside."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from benchmarks import fleet, raw
from benchmarks.figures import Row, table
from benchmarks.lab import CONSUL, EMBEDDED, Laboratory
from benchmarks.observers import Observer
from tests.support.agent import AgentProcess
from tests.support.engine import Docker, unique, wait_for

LIFE = "0.25"  # seconds after which a container that ends by itself does so
ENDS = ("die", "kill")
REST = 0.05  # seconds of peace between two measurements

# Milliseconds by the event that they are counted from: start; die, of a process that ended by itself;
# kill, of `docker kill`, whose die comes some 20 ms later.
Times = defaultdict[str, list[float]]


def report(lab: Laboratory, catalogs: Sequence[str], rounds: int) -> None:
    """Measure every place where a container can be seen, with the floor before and after, and print it."""
    least = floor(lab, (rounds + 1) // 2)
    found: list[tuple[str, str, Times]] = []
    if CONSUL in catalogs:
        found += with_consul(lab, rounds)
    if EMBEDDED in catalogs:
        with running(lab.agent(EMBEDDED)) as agent:
            found.append(("embedded", "our DNS", by_dns(lab, agent, unique("bench"), rounds, ENDS)))
    for event, times in floor(lab, rounds // 2).items():
        least[event] += times
    seen = [row for catalog, where, times in found for row in rows(catalog, where, times, least)]
    table("From Docker's event until it is seen", seen)
    table(
        "The floor: event, inspect, one PUT, nothing else",
        rows("the floor", "Consul's catalog", least, least),
    )


def floor(lab: Laboratory, rounds: int) -> Times:
    """What the least that can be done takes: the live peer of all the rest."""
    service = unique("floor")
    url, consul = lab.docker.url, lab.consul.url
    with Observer("floor", url, consul, service), Observer("catalog", consul, service) as seen:
        return measure(lab.docker, seen, service, rounds, who="floor")


def with_consul(lab: Laboratory, rounds: int) -> list[tuple[str, str, Times]]:
    """Until Consul's catalog shows it; until our DNS does, for a name that it knows and for a new one."""
    service, new, known = unique("bench"), unique("bench"), unique("bench")
    lab.consul.put("/v1/agent/service/register", {"ID": known, "Name": known, "Address": "192.0.2.1"})
    with running(lab.agent(CONSUL)) as agent:
        with Observer("catalog", lab.consul.url, service) as seen:
            catalog = measure(lab.docker, seen, service, rounds, ENDS)
        wait_for(lambda: agent.ask(known) == ["192.0.2.1"], "answer for the known name")
        return [
            ("consul", "Consul's catalog", catalog),
            ("consul", "our DNS, a known name", by_dns(lab, agent, known, rounds)),
            ("consul", "our DNS, a new name", by_dns(lab, agent, new, rounds)),
        ]


def by_dns(
    lab: Laboratory, agent: AgentProcess, service: str, rounds: int, ends: Sequence[str] = ("die",)
) -> Times:
    """Until our own DNS answers with one more or one less."""
    with Observer("dns", "127.0.0.1", str(agent.dns_port), service, lab.docker.url) as seen:
        return measure(lab.docker, seen, service, rounds, ends)


@contextmanager
def running(agent: AgentProcess) -> Iterator[AgentProcess]:
    """A ready agent, stopped at the end."""
    try:
        agent.start_ready()
        yield agent
    finally:
        agent.close()


def measure(
    docker: Docker,
    observer: Observer,
    service: str,
    rounds: int,
    ends: Sequence[str] = ("die",),
    who: str = "agent",
) -> Times:
    """Start containers one by one, `rounds` for each way to end: by itself ("die") or by "kill"."""
    times: Times = defaultdict(list)
    labels = {raw.LABEL: who, "SERVICE_NAME": service, "SERVICE_PORT": "80"}
    if who == "floor":
        labels["SERVICE_IGNORE"] = "1"
    for end in ends:
        with fleet.created(docker, rounds, labels, ["sleep", LIFE if end == "die" else "100000"]) as ids:
            for container in ids:
                one_life(docker, observer, container, times, end)
    return times


def one_life(docker: Docker, observer: Observer, container: str, times: Times, end: str) -> None:
    """Start a container, see it appear, let it end or kill it, see it disappear."""
    began = time.time()
    docker.start(container)
    appeared = observer.next()["at"]
    if end == "kill":
        time.sleep(REST)
        docker.kill(container)
    disappeared = observer.next()["at"]
    docker.api.wait(container)
    time.sleep(REST)
    event = raw.past_events(docker.url, container, began)
    times["start"].append((appeared - event["start"]) / 1e6)
    times[end].append((disappeared - event[end]) / 1e6)


def rows(catalog: str, where: str, times: Times, least: Times) -> list[Row]:
    """The table's rows for one place where containers were seen."""
    peer = where == "Consul's catalog" and times is not least  # where registrator was measured, too
    found = [
        Row(
            f"{catalog}: start -> {where}",
            times["start"],
            floor=median(least["start"]),
            target="<= 3.0" if peer else "",
            earlier="2.7-3.0" if peer else "",
        ),
        Row(
            f"{catalog}: die -> gone from {where}",
            times["die"],
            floor=median(least["die"]),
            target="<= 2.5" if peer else "",
            earlier="2.2-2.5" if peer else "",
        ),
    ]
    if times["kill"]:
        found.append(Row(f"{catalog}: docker kill -> gone from {where}", times["kill"]))
    return found
