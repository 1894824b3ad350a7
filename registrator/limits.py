"""Every bound on what comes from outside, in one place.

A `Limit` is a number with its reason. `docs/security.md` has a table that is
generated from this module (`make docs`), and each time a limit is hit the
counter `registrator_limited_total` rises with the limit's name as its label.

The limits are generous: a setup that real people run meets none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound: `value` in `unit`, why it is needed, and what happens beyond it."""

    name: str
    value: int
    unit: str
    why: str
    beyond: str


# Labels and environment ---------------------------------------------------

SERVICE_KEYS = Limit(
    "service_keys",
    1024,
    "keys",
    "SERVICE_* labels and variables of one container; 100 ports have 10 each",
    "labels come before the environment; the others are left out",
)
SERVICE_KEY_OCTETS = Limit(
    "service_key_octets", 256, "octets", "the name of one SERVICE_* key", "the key is left out"
)
SERVICE_VALUE_OCTETS = Limit(
    "service_value_octets", 16384, "octets", "the value of one SERVICE_* key", "the key is left out"
)
SERVICE_OCTETS = Limit(
    "service_octets",
    262144,
    "octets",
    "all SERVICE_* keys of one container with their values",
    "labels come before the environment; the others are left out",
)
INSTANCES = Limit(
    "instances",
    100,
    "instances",
    "one container must not fill the catalog",
    "ports that labels name come first, then published ones, each by number; the others are left out",
)
NAMES = Limit(
    "names", 16, "names", "each name of a port is an instance of its own", "the first ones are registered"
)
NAME_OCTETS = Limit(
    "name_octets", 255, "characters", "a name before it is fitted into a DNS label", "the rest is cut off"
)
ID_OCTETS = Limit("id_octets", 255, "octets", "a SERVICE_ID", "the default id is used")
TAGS = Limit(
    "tags",
    64,
    "tags",
    "tags of one instance; as many again from `--tags`",
    "the first ones are registered",
)
TAG_OCTETS = Limit("tag_octets", 1024, "octets", "one tag", "the tag is left out")
ADDRESSES = Limit(
    "addresses",
    4096,
    "addresses",
    "each instance holds its address on every network of its container",
    "the remaining ports of the container are left out",
)
CHECK_HEADERS = Limit(
    "check_headers", 64, "values", "a SERVICE_CHECK_HEADER is copied to each check", "the header is left out"
)
PROBLEMS = Limit(
    "problems",
    64,
    "problems",
    "what is refused of one container is remembered, so that it is logged once",
    "the others are not logged",
)

# Templates ----------------------------------------------------------------

TEMPLATE_OCTETS = Limit(
    "template_octets", 4096, "octets", "the text of a template", "what it is for is left out"
)
TEMPLATE_RESULT = Limit(
    "template_result",
    16384,
    "octets",
    "the result of a template, and every text on the way to it",
    "what the template is for is left out",
)
TEMPLATE_LIST = Limit(
    "template_list",
    1024,
    "elements",
    "a list on the way to the result; of the environment the first ones can be used",
    "what the template is for is left out",
)
TEMPLATE_STEPS = Limit(
    "template_steps",
    4096,
    "steps",
    "work of all templates of a container: each word is a step, and each 256 octets that a function handles",
    "what the template is for is left out",
)
TEMPLATE_MATCH = Limit(
    "template_match",
    256,
    "octets",
    "the text that an operator's pattern in a template is matched against",
    "a longer text does not match",
)

# DNS ----------------------------------------------------------------------

# Recursion ----------------------------------------------------------------

# HTTP ---------------------------------------------------------------------

# Health checks ------------------------------------------------------------

# Consul's documents -------------------------------------------------------

# The engine's documents ---------------------------------------------------

PORTS = Limit(
    "ports",
    1024,
    "ports",
    "an image may expose 131,070",
    "published ports come first, each by number; the others are left out",
)
BINDINGS = Limit(
    "bindings",
    2048,
    "bindings",
    "where the node publishes the ports of one container",
    "the other ports count as not published",
)
PORT_BINDINGS = Limit(
    "port_bindings", 64, "bindings", "where the node publishes one port", "the first ones count"
)
NETWORKS = Limit(
    "networks", 256, "networks", "of one container", "it is registered on the first ones, by name"
)
LABELS = Limit(
    "labels",
    4096,
    "labels",
    "of one container or Swarm service",
    "the container is not registered: a label that forbids it may be among the others",
)
ENVIRONMENT = Limit(
    "environment",
    4096,
    "variables",
    "of one container",
    "the first ones count; the user's come before the image's",
)
FACT_OCTETS = Limit(
    "fact_octets",
    255,
    "characters",
    "the name of a container, its image, its host and its networks, and of its Swarm or Compose service",
    "the rest is cut off; a container's name ends with its id then",
)

# The process --------------------------------------------------------------


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
