"""The demo's proof: the counter counts, by name, through the agent.

Everything is asked as any client would ask it: DNS over UDP, then HTTP to the
address and port of the answer. Nothing is taken from Docker.
"""

import itertools
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from dnslib import EDNS0, QTYPE, DNSError, DNSRecord

from scripts.demo.steps import DemoError

READY_SECONDS = 60.0
VISITS = 10
GREETING = re.compile(r"Hello, visitor (\d+) \(served by (\S+)\)")


@dataclass(frozen=True)
class Front:
    """Where an agent answers: ADDR:PORT for DNS, ADDR:PORT for HTTP."""

    dns: str
    http: str

    def ask(self, name: str, kind: str = "A") -> DNSRecord:
        """Ask the agent's DNS over UDP. Raises OSError where it does not answer within a second."""
        host, _, port = self.dns.rpartition(":")
        question = DNSRecord.question(name, kind)
        question.add_ar(EDNS0(udp_len=1232))  # room for all records, as dig asks for
        try:
            return DNSRecord.parse(question.send(host, int(port), timeout=1))
        except DNSError as error:
            raise OSError(f"no DNS answer: {error}") from error

    def addresses(self, service: str) -> list[str]:
        """The addresses that a service's name gives now."""
        return [str(record.rdata) for record in self.ask(f"{service}.service.consul").rr]

    def instances(self, service: str) -> int:
        """How many instances a service has now; two behind one address differ in their ports."""
        return len(self.ask(f"{service}.service.consul", "SRV").rr)

    def endpoint(self, service: str, turn: int = 0) -> tuple[str, int]:
        """The address and port of one instance by SRV: of each in its turn. Raises OSError for none."""
        answer = self.ask(f"{service}.service.consul", "SRV")
        if not answer.rr:
            raise OSError(f"{service}.service.consul has no SRV record")
        instances = sorted(
            (record.rdata for record in answer.rr), key=lambda srv: (str(srv.target), srv.port)
        )
        chosen = instances[turn % len(instances)]
        for record in answer.ar:
            if record.rname == chosen.target and record.rtype == QTYPE.A:
                return str(record.rdata), chosen.port
        raise OSError(f"the answer for {service}.service.consul has no address of {chosen.target}")

    def ready(self) -> bool:
        """Whether the agent has reconciled once (/readyz)."""
        try:
            return fetch(f"http://{self.http}/readyz")[0] == 200
        except OSError:
            return False


def fetch(url: str, token: str = "") -> tuple[int, str]:
    """GET a URL, without any proxy: (status, body). Raises OSError where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"X-Consul-Token": token} if token else {})
    try:
        with opener.open(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_until_answered(front: Front, wanted: dict[str, int], alive: Callable[[], bool]) -> None:
    """Return when each service's name gives as many instances as wanted.

    Raises DemoError after a minute, and as soon as the agent is not `alive`.
    """
    give_up = time.monotonic() + READY_SECONDS
    found: dict[str, int] = {}
    while time.monotonic() < give_up and alive():
        try:
            found = {service: front.instances(service) for service in wanted}
            if found == wanted and front.ready():
                return
        except OSError:
            pass
        time.sleep(0.1)
    if not found:
        raise DemoError(f"the agent does not answer at {front.dns}; its log, above, says why")
    raise DemoError(
        f"the agent answers {found}, not {wanted} as it should; if other containers here have "
        "these names, stop them, else see its log above"
    )


def prove(front: Front) -> None:
    """Visit the counter ten times, look the others up, print it all. Raises DemoError if it is not right."""
    print(f"\nThe counter, asked {VISITS} times, at the instances of SRV counter.service.consul in turn:")
    visits = [visit(front, turn) for turn in range(VISITS)]
    counts = [count for count, _ in visits]
    if any(later - earlier != 1 for earlier, later in itertools.pairwise(counts)):
        raise DemoError(f"the counter does not count one by one: {counts}; does somebody else visit it?")
    if len({host for _, host in visits}) < 2:
        raise DemoError("all visits went to one of the two counters; see SRV counter.service.consul")
    for name, kind in (("redis", "A"), ("redis", "SRV"), ("whoami", "A"), ("whoami", "SRV")):
        dig(front, f"{name}.service.consul", kind)


def visit(front: Front, turn: int) -> tuple[int, str]:
    """Visit the counter once: (its count, the host that served). Raises DemoError."""
    try:
        address, port = front.endpoint("counter", turn)
        status, body = fetch(f"http://{address}:{port}/")
    except OSError as error:
        raise DemoError(f"the counter cannot be visited: {error}; see: docker ps") from error
    print(f"  {address}:{port:<5}  {body.strip()}")
    greeting = GREETING.fullmatch(body.strip())
    if status != 200 or not greeting:
        raise DemoError(f"the counter answered {status}: {body.strip()}; see its log and redis'")
    return int(greeting[1]), greeting[2]


def dig(front: Front, name: str, kind: str) -> None:
    """Print a lookup's records as dig would. Raises DemoError where there are none."""
    answer = front.ask(name, kind)
    print(f"\n; {name} {kind}")
    for record in (*answer.rr, *answer.ar):
        if record.rtype != QTYPE.OPT:
            print(f"{record.rname!s:<44} {record.ttl} IN {QTYPE[record.rtype]:<5} {record.rdata}")
    if not answer.rr:
        raise DemoError(f"{name} has no {kind} record; see: docker logs of the agent")
