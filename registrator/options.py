"""What every option of the agent has: an environment variable of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(name: str, **attributes: Any) -> Callable[[Command], Command]:  # noqa: ANN401 - click's own types
    """A click option that is also an environment variable: --dns is REGISTRATOR_DNS."""
    variable = "REGISTRATOR_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, envvar=variable, show_envvar=True, **attributes)
