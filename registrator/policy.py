"""What the operator decides about registration: which containers, at which address, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from registrator.model import Container

ALWAYS, ON_SUCCESS, NEVER = "always", "on-success", "never"

# The label by which a container opts in or out, whatever else it says.
ENABLE_LABEL = "registrator.enable"

# Names that machines look up by themselves, in the domains that they search, and believe (WPAD, ISATAP);
# that mean every machine itself; and the ends of others' names: with a tag `www.bank` a service `com` is
# www.bank.com to whoever searches the zone. Nobody has a service of such a name.
DENIED_NAMES = ("wpad", "isatap", "localhost", "localdomain", "com", "net", "edu", "gov", "mil", "arpa")

# Of these a tag is enough: `wpad.web.service.consul` is what a machine that searches web.service.consul asks.
SEARCHED_NAMES = frozenset(("wpad", "isatap"))

SIGNALLED = 128  # set in the exit code of a container that a signal ended


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on a container's labels; `value` None asks only whether the label is there."""

    key: str
    value: str | None = None
    negated: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with these labels fulfils it."""
        found = labels.get(self.key)
        matches = found is not None if self.value is None else found == self.value
        return matches is not self.negated


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of `registrator agent` that shape what is registered."""

    internal: bool = False  # prefer the container's address and port to the node's
    explicit: bool = False  # only what names a service
    exposed_by_default: bool = True  # False: only containers labelled registrator.enable=true
    constraints: tuple[Constraint, ...] = ()  # all of them must hold
    networks: tuple[str, ...] = ()  # whose addresses are preferred, the most wanted first
    ip_from_label: str = ""  # a label that holds the address
    ip_from_network: str = ""  # a network whose address and container port are registered
    tags: str = ""  # a comma list for every service; may be a template
    name_template: str = ""  # gives the default name
    meta: tuple[tuple[str, str], ...] = ()  # for every service
    allow_script_checks: bool = False
    own_checks_only: bool = False  # no check of anything but the container itself
    deregister: str = ALWAYS
    allow_names: tuple[str, ...] = ()  # globs in lower case, one of which a service's name matches; none: any
    deny_names: tuple[str, ...] = DENIED_NAMES  # globs in lower case, none of which it matches
    deregister_after: float = 0.0  # seconds a check may be critical before the catalog drops the instance


def selects(policy: Policy, labels: Mapping[str, str]) -> bool:
    """Whether a container with these labels is to be registered at all."""
    enabled = labels.get(ENABLE_LABEL, "").strip().lower()
    if enabled in ("false", "0", "no") or (
        not policy.exposed_by_default and enabled not in ("true", "1", "yes")
    ):
        return False
    return all(constraint.holds(labels) for constraint in policy.constraints)


def keeps(policy: Policy, gone: Container | None) -> bool:
    """Whether the instances of a container that is not up any more stay registered.

    `gone` is None when the engine does not know the container any more. With
    "on-success" they stay when it failed by itself: an exit code that is
    neither 0 nor that of a signal.
    """
    if policy.deregister == ON_SUCCESS:
        return gone is not None and gone.exit_code != 0 and not gone.exit_code & SIGNALLED
    return policy.deregister == NEVER


def allows_name(policy: Policy, name: str) -> bool:
    """Whether a container may take the name of a service; case does not count, as in DNS."""
    name = name.lower()
    if any(fnmatchcase(name, glob) for glob in policy.deny_names):
        return False
    return not policy.allow_names or any(fnmatchcase(name, glob) for glob in policy.allow_names)
