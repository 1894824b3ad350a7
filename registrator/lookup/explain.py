"""Why a name gives an asker what it gives: instance by instance, in words. Pure.

The choice itself is made by `lookup_api.find_service` and `reach.reach`, which
every lookup uses; here is only said what they decided, and why.
"""

from __future__ import annotations

import difflib
import heapq
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from registrator import limits
from registrator.lookup.names import ServiceName
from registrator.lookup.reach import reach
from registrator.model import CRITICAL, Address, CheckResult, Entry, Service, View
from registrator.settings import join_host_port

NODE_MAINTENANCE, SERVICE_MAINTENANCE = "_node_maintenance", "_service_maintenance:"  # Consul's check ids
MAX_OUTPUT = 300  # characters of a check's output that are told
MAX_NEAREST = 5
ALIKE = 0.6  # of 1, which is the same; difflib's own limit for a close match
MAX_COMPARED = limits.HTTP_NEAREST.value  # names
LONGEST_COMPARED = 64  # characters: to compare two names costs the product of their lengths

Json = Mapping[str, object]
Likeness = tuple[float, int, str]  # the ratio, the length as a negative number, the name


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: `what` in words, for people, and what it can reach."""

    what: str
    view: View


def explained(name: ServiceName, service: Service, asker: Asker, reached: Iterable[Entry]) -> Iterator[Json]:
    """Every instance of the service, answered to this asker or not, and why, one after the other.

    `reached` are those that are within the asker's reach (see `reach.within_reach`).
    The shape: {id, node, status, answered, why, addresses: [{address, port,
    network}]}.
    """
    known = set(map(id, reached))
    return (_instance(e, name.tag, asker.view, reached=id(e) in known) for e in service.entries)


def summary(name: ServiceName, service: Service, asker: Asker, answered: int) -> Json:
    """`GET /explain/<name>` without its `instances`, `answered` of which are.

    The shape: {service, tag, asker: {what, networks}, answered, left_out}.
    """
    return {
        "service": service.name,
        "tag": name.tag,
        "asker": {"what": asker.what, "networks": sorted(asker.view.networks)},
        "answered": answered,
        "left_out": len(service.entries) - answered,
    }


def comparable(text: str, names: Collection[str]) -> Iterator[str]:
    """Of the names those that `likeness` may judge: a bounded number, those with the same initial first."""
    if len(text) > LONGEST_COMPARED:
        return
    initial = text[:1].lower()
    like = (name for name in names if len(name) <= LONGEST_COMPARED and name.startswith(initial))
    unlike = (name for name in names if len(name) <= LONGEST_COMPARED and not name.startswith(initial))
    yield from itertools.islice(itertools.chain(like, unlike), MAX_COMPARED)


def likeness(text: str) -> Callable[[str], Likeness | None]:
    """A judge of names: how like one is to `text`; None for one that can hardly have been meant."""
    plain = text.lower()
    matcher = difflib.SequenceMatcher(b=plain)

    def judge(name: str) -> Likeness | None:
        matcher.set_seq1(name)
        bounds = (matcher.real_quick_ratio, matcher.quick_ratio)  # of the ratio, and cheaper than it
        if all(bound() >= ALIKE for bound in bounds) and (ratio := matcher.ratio()) >= ALIKE:
            return ratio, -len(name), name
        contained = plain and (plain in name or name in plain)
        return (0.0, -len(name), name) if contained else None

    return judge


def nearest(judged: Iterable[Likeness]) -> list[str]:
    """The names that may have been meant, the likeliest first: the most alike, then the shortest."""
    return [name for _, _, name in heapq.nlargest(MAX_NEAREST, judged)]


def _instance(entry: Entry, tag: str, view: View, *, reached: bool) -> dict[str, object]:
    left_out = why_left_out(entry, tag)
    if not reached:
        networks = " and ".join(dict.fromkeys(a.network for a in entry.instance.addresses))
        alone = f"it is on {networks} alone, which this asker is not on, and others can be reached"
        left_out = "; ".join(filter(None, (left_out, alone)))
    addresses = reach(entry, view) if not left_out else ()
    if not left_out and not addresses:
        left_out = "it has no address at all: neither the instance nor its node"
    return {
        "id": entry.instance.id,
        "node": entry.node.name,
        "status": entry.status,
        "answered": not left_out,
        "why": left_out or why_there(entry, addresses[0], view),
        "addresses": [{"address": a.ip, "port": a.port, "network": a.network} for a in addresses],
    }


def why_left_out(entry: Entry, tag: str = "") -> str:
    """Why nobody is given this instance under a name narrowed to `tag`; "" where it is given."""
    reasons = [_because(check) for check in entry.checks if check.status == CRITICAL]
    if tag and tag not in {own.lower() for own in entry.instance.tags}:
        tags = ", ".join(entry.instance.tags) or "none"
        reasons.append(f"it lacks the tag {tag} (its tags: {tags})")
    return "; ".join(reasons)


def _because(check: CheckResult) -> str:
    """What a critical check says, as a reason."""
    output = _short(check.output or check.notes)
    if check.id == NODE_MAINTENANCE:
        return f"its node is in maintenance: {output or 'no reason was given'}"
    if check.id.startswith(SERVICE_MAINTENANCE):
        return f"it is in maintenance: {output or 'no reason was given'}"
    whose = "check" if check.service_id else "its node's check"
    return f"{whose} {check.name or check.id!r} is critical: {output or 'it has said nothing yet'}"


def _short(output: str) -> str:
    line = " ".join(output.split())
    return line if len(line) <= MAX_OUTPUT else f"{line[:MAX_OUTPUT]}…"


def why_there(entry: Entry, address: Address, view: View) -> str:
    """Why the asker is given this address of the instance, in the order of `reach`."""
    where = join_host_port(address.ip, address.port)
    if address.network_id and address.network_id in view.networks:
        return f"{where}: both are on network {address.network}"
    published = any(a.ip == address.ip and a.port == address.port and not a.network_id
                    for a in entry.instance.addresses)  # fmt: skip
    if view.networks and published:
        return f"{where}: no shared network, so the port that its node publishes"
    if not entry.instance.address:
        return f"{where}: registered without an address, so its node's"
    registered = f"{where}: the registered address"
    if published:
        return f"{registered}, which is the port that its node publishes"
    home = next((a.network for a in entry.instance.addresses if a.ip == address.ip and a.network_id), "")
    if home:
        return f"{registered}, on network {home}, which this asker is not on: only a route makes it reachable"
    return registered
