"""Who asks: a container's view, by its address, its name or its id."""

from __future__ import annotations

from dataclasses import replace

from registrator.bridge.views import Views
from registrator.model import OUTSIDE, Attachment, Container, View

ID = "0123456789abcdef" * 4
WEB = Container(
    id=ID,
    name="web",
    image="i",
    state="running",
    networks=(Attachment("app", "f" * 64, "10.0.1.5"),),
)
ON_APP = View(frozenset({"f" * 12}))


def test_a_container_is_found_by_address_name_and_id() -> None:
    views = Views()
    views.put(WEB)
    assert views.of("10.0.1.5") == ON_APP
    assert [views.of_container(text) for text in ("web", ID, ID[:12])] == [ON_APP] * 3
    assert views.names() == ["web"]


def test_no_other_text_is_taken_for_a_container() -> None:
    views = Views()
    views.put(WEB)
    assert [views.of_container(text) for text in ("", "we", "0123", "f" * 64)] == [None] * 4


def test_a_container_without_a_network_of_its_own_sees_from_outside() -> None:
    views = Views()
    views.put(replace(WEB, networks=(), network_mode="host"))
    assert views.of_container("web") == OUTSIDE


def test_a_container_that_is_not_up_or_gone_is_no_asker() -> None:
    views = Views()
    views.put(WEB)
    views.put(replace(WEB, name="renamed"))
    assert views.names() == ["renamed"]
    views.put(replace(WEB, state="exited"))
    assert (views.names(), views.of_container("web"), views.of("10.0.1.5")) == ([], None, OUTSIDE)


def test_a_late_look_at_a_container_that_is_gone_takes_no_address_from_its_successor() -> None:
    """The engine gives an address anew at once; a look may begin before a container's end, and end late."""
    former = replace(WEB, id="e" * 64, networks=(Attachment("other", "9" * 64, "10.0.1.5"),))
    views = Views()
    views.put(WEB)
    views.put(former)
    views.drop(former.id)
    assert views.of("10.0.1.5") == ON_APP
    views.drop(WEB.id)
    assert views.of("10.0.1.5") == OUTSIDE
