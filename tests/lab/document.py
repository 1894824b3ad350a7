"""docs/swarm.md, carried out: its commands are taken from its text, and run on the nodes that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from scripts.demo.steps import ROOT, DemoError
from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until

DOCUMENT = ROOT / "docs/swarm.md"
COMMAND = re.compile(r"^(n[123])\$ (.*)$", re.MULTILINE)
TOKEN = re.compile(r"SWMTKN-\S+")

# What each must print, in order. What only looks is asked until it does: the stack takes its time.
EXPECTED = (
    r"Swarm initialized",
    r"joined a swarm as a worker",
    r"joined a swarm as a worker",
    r"(Ready[^\n]*\n[^\n]*){2}Ready",
    r"secret consul.json\nsecret registrator-manager\nsecret registrator-worker",
    r"Creating service demo_web",
    r"management token.*: [0-9a-f-]{36}\n.*token and policy registrator-worker",
    r"redis +replicated +1/1.*registrator +global +1/1.*-worker +global +2/2.*web +.*5/5.*whoami +.*3/3",
    r"redis +1 .*web +5 .*whoami +3 ",
    r"^(1 1 \d+ \S+\n?){5}$",
    r"^([\d.]+:\d+\n?){5}$",
    r"Hello, visitor \d+ ",
)
CHANGES = re.compile(r"docker (swarm|stack deploy) |consul.sh secrets")


@dataclass(frozen=True)
class Done:
    """A command of the document, the node that it was run on, and what it printed."""

    node: str
    command: str
    output: str


def commands() -> list[tuple[str, str]]:
    """The node and the command of each, in the document's order."""
    return COMMAND.findall(DOCUMENT.read_text())


def follow(lab: Lab) -> list[Done]:
    """Do as the document says; only `TOKEN` is put in, as a reader would. Raises DemoError."""
    done: list[Done] = []
    token = "TOKEN"
    nodes = {node.name: node for node in lab.nodes}
    for (name, command), expected in zip(commands(), EXPECTED, strict=True):
        ask = partial(printed, nodes[name], command.replace("TOKEN", token), expected)
        said = ask() if CHANGES.search(command) else until(ask, command, 90)
        token = found[0] if (found := TOKEN.search(said)) else token
        if "consul.sh tokens" in command:
            lab.keep_token(said)
        done.append(Done(name, command, said))
    return done


def printed(node: Node, script: str, expected: str) -> str:
    """What a command line prints on a node, in this checkout. Raises DemoError for what was not expected."""
    said = node.run("bash", "-ec", f"cd {ROOT}; unset DOCKER_HOST; {script}")
    if not re.search(expected, said, re.DOTALL):
        raise DemoError(f"docs/swarm.md: `{script}` printed {said!r}")
    return said
