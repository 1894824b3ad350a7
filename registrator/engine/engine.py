"""`DockerEngine`: one engine's listing, containers and events, for as long as the agent lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from registrator.complaint import Complaint
from registrator.documents import Element, Unusable
from registrator.engine.client import TIMEOUT, Client
from registrator.engine.endpoint import resolve
from registrator.engine.errors import EngineError, Refused, TooLong, Unreachable, explain, not_an_engine
from registrator.engine.parse import Listed, parse_info, parse_inspect, parse_listed
from registrator.engine.shared import SharedRead
from registrator.engine.subscription import Subscription
from registrator.engine.swarm import parse_gateways, parse_service, with_gateway
from registrator.limits import ENGINE_DOCUMENT, ENGINE_ELEMENT
from registrator.model import GATEWAY, Attachment, Container, Engine, Event, SwarmService
from registrator.shapes import Malformed
from registrator.spoilt import Spoilt
from registrator.stats import Stats

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts to subscribe


class DockerEngine:
    """What a Docker engine says, as the model's words.

    `url` is the engine's address; "" is what the `docker` command would use
    (DOCKER_HOST, the current context, the standard socket). Constructing it
    contacts nobody, and raises `SettingError` for an address that makes no sense.

    Every read raises `EngineError` when it failed, `Unreachable` where trying
    again may help. None takes longer than `timeout` seconds.
    """

    def __init__(self, url: str = "", *, stats: Stats, timeout: float = TIMEOUT) -> None:
        self._endpoint = resolve(url)
        self._client = Client(self._endpoint, timeout)
        self._stats = stats
        self._subscription: Subscription | None = None
        self._complaint = Complaint(log)
        self._spoilt = Spoilt("engine", stats, log)
        self._gateways = SharedRead(self._read_gateways)
        self._without_gateways = Complaint(log)
        self._are_tasks: dict[str, bool] = {}  # by container with a task's labels, for its whole life

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_subscription()
        await self._client.__aexit__(kind, error, trace)

    async def info(self) -> Engine:
        """Who the node is (`GET /info`)."""
        return await self._parsed("/info", parse_info)

    async def containers(self) -> list[Listed]:
        """All containers whose processes exist, running or paused (`GET /containers/json`).

        One of which nothing can be read is left out; before a container counts
        as gone it is inspected.
        """
        listed, left_out, first = await self._listed("/containers/json", parse_listed)
        self._spoilt.left_out(f"/containers/json of the Docker engine at {self._endpoint}", left_out, first)
        present = {container.id for container in listed}
        self._are_tasks = {key: known for key, known in self._are_tasks.items() if key in present}
        return listed

    async def services(self) -> list[SwarmService]:
        """All services of the Swarm (`GET /services`); only a manager that has a leader can tell.

        One that cannot be read fails the whole: what is left out here is
        deleted for all agents.
        """
        services, left_out, first = await self._listed("/services", parse_service)
        if left_out:
            raise not_an_engine(self._endpoint, f"/services: {first}")
        return services

    async def inspect(self, container_id: str) -> Container | None:
        """One container (`GET /containers/{id}/json`); None when the engine says that there is none.

        One that is on a Swarm's network has its place on docker_gwbridge among its networks.
        It is a task only where the engine runs it as one: anybody may give a container a task's labels.
        """
        path = f"/containers/{quote(container_id, safe='')}/json"
        container = await self._if_known(path, parse_inspect)
        if container is not None and container.task is not None and not await self._is_task(container.id):
            container = replace(container, task=None)
        if container is None or not any(network.of_swarm for network in container.networks):
            return container
        return with_gateway(container, await self._gateways())

    async def events(self) -> AsyncGenerator[Event]:
        """Yield wake-ups for ever: an empty one after each new subscription, then one per event.

        A lost engine is waited for, with a growing pause between attempts.
        """
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            begin = loop.time()
            try:
                async with contextlib.aclosing(self._subscribe()) as events:
                    async for event in events:
                        yield event
            except EngineError as error:
                self._complaint.failed("%s; trying again", error)
            except Exception as error:  # noqa: BLE001 - whatever an engine says, it never ends the agent
                self._complaint.failed("%s; trying again", explain(self._endpoint, error, TIMEOUT))
            if loop.time() - begin > LONGEST_PAUSE:  # it was a subscription worth the name
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter is no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _subscribe(self) -> AsyncGenerator[Event]:
        """One subscription, from the engine's own second on.

        What came before is in the listing that follows. Told again it would
        mislead: a container may be in its next life, or have outlived a signal.
        """
        now = await self._client.negotiate()  # anew each time: the engine may have been upgraded
        self._subscription = Subscription(self._client, self._endpoint, now, self._spoilt)
        async with contextlib.aclosing(self._subscription.events()) as events:
            async for event in events:
                if event.action:
                    self._stats.events[event.action] += 1
                else:
                    self._complaint.over("the Docker engine at %s is back", self._endpoint)
                yield event

    async def _is_task(self, container_id: str) -> bool:
        """Whether a Swarm's own agent made a container (`GET /containers/json`, filter is-task).

        The engine keeps this to itself: it is not among what a container is made with, nor in its document.
        """
        if container_id not in self._are_tasks:
            filters = json.dumps({"is-task": ["true"], "id": [container_id]})
            try:
                found, _, why = await self._listed(
                    f"/containers/json?all=1&filters={quote(filters)}", parse_listed
                )
            except Refused as error:
                if error.status != 400:  # an engine that knows of no tasks
                    raise
                found, why = [], ""
            is_task = any(listed.id == container_id for listed in found)
            if why and not is_task:
                raise not_an_engine(self._endpoint, f"its tasks among /containers/json: {why}")
            self._are_tasks[container_id] = is_task
        return self._are_tasks[container_id]

    async def _read_gateways(self) -> dict[str, Attachment]:
        """The containers on docker_gwbridge; none where a proxy hides it, or it cannot be used."""
        try:
            found = await self._if_known(f"/networks/{GATEWAY}", parse_gateways)
        except Unreachable:
            raise
        except EngineError as error:
            self._without_gateways.failed("askers on a Swarm's networks are not recognized: %s", error)
            return {}
        self._without_gateways.over("askers on a Swarm's networks are recognized again")
        return found or {}

    async def _listed(self, path: str, parse: Callable[[object], T]) -> tuple[list[T], int, str]:
        """The elements of a long array; how many could not be used, and which was the first, and why."""
        listed: list[T] = []
        refused: list[str] = []

        def take(element: Element) -> None:
            value = element.value
            why = value.why if isinstance(value, Unusable) else ""
            try:
                if not why:
                    listed.append(parse(value))
                    return
            except Exception as error:  # noqa: BLE001 - one bad element spoils itself
                why = (
                    str(error) if isinstance(error, Malformed) else f"cannot be used ({type(error).__name__})"
                )
            self._spoilt.count(ENGINE_ELEMENT.name if isinstance(value, Unusable) and value.too_long else "")
            refused.append(f"number {len(listed) + len(refused)} {why}")

        with self._contact():
            await self._client.listing(path, take)
        return listed, len(refused), refused[0] if refused else ""

    async def _if_known(self, path: str, parse: Callable[[object], T]) -> T | None:
        """What a path names, or None when the engine says that there is no such thing."""
        try:
            return await self._parsed(path, parse)
        except Refused as error:
            if error.status == 404 and error.said:  # a proxy that lost its way says 404 in words of its own
                return None
            raise

    async def _parsed(self, path: str, parse: Callable[[object], T]) -> T:
        try:
            with self._contact():
                document = await self._client.json(path)
            return parse(document)
        except (Unreachable, Refused):
            raise
        except EngineError as error:
            self._spoilt.count(ENGINE_DOCUMENT.name if isinstance(error, TooLong) else "")
            raise
        except Exception as error:  # whatever a document holds, it spoils itself
            self._spoilt.count()
            raise not_an_engine(self._endpoint, f"{path}: {error}") from error

    @contextlib.contextmanager
    def _contact(self) -> Iterator[None]:
        """Let an engine that is found lost end the event stream too: over TCP a dead one is only silent."""
        try:
            yield
        except Unreachable:
            self._drop_subscription()
            raise

    def _drop_subscription(self) -> None:
        if self._subscription:
            self._subscription.close()
