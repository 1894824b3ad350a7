"""The rights that an agent's token needs at Consul, and what `doctor` says of those it lacks. Pure.

Consul hides what a token may not read, as if it were not there: so nothing
but asking tells a worker that it is not shown what its Swarm's managers know.
"""

from __future__ import annotations

from typing import Any

from registrator.commands.finding import GOOD, WARNING, Finding
from registrator.model import Engine

# By what the right is about: the prefix that the README's policy has, and the remedy.
_PREFIXES = {"service": "", "key": "registrator/swarm/"}
_REMEDIES = {
    "service": "add it to its policy, unless only certain names are to be taken",
    "key": "add it to its policy, or labels under `deploy:` and mesh ports stay unknown without a word",
}


def needed(facts: Engine | None) -> list[dict[str, str]]:
    """What to ask of `/v1/internal/acl/authorize`: services, and in a Swarm what its managers tell all."""
    rights = [{"Resource": "service", "Access": "write", "Segment": "registrator-doctor"}]
    if facts and (facts.manager or facts.swarm_node_id):
        access = "write" if facts.manager else "read"
        rights.append({"Resource": "key", "Access": access, "Segment": f"{_PREFIXES['key']}doctor"})
    return rights


def rights_finding(told: list[dict[str, Any]]) -> Finding:
    """The finding for what Consul says of each right: {Resource, Access, Allow}."""
    lacking = [right for right in told if not right["Allow"]]
    if not lacking:
        return Finding(GOOD, "rights", "the token may do all that the agent needs")
    names = [
        f'{right["Resource"]}_prefix "{_PREFIXES[right["Resource"]]}" {right["Access"]}' for right in lacking
    ]
    remedies = dict.fromkeys(_REMEDIES[right["Resource"]] for right in lacking)
    return Finding(WARNING, "rights", f"the token lacks {' and '.join(names)}", "; ".join(remedies))
