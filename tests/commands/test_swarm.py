"""What `doctor` says of a Swarm, from documents in the engine's form.

On a real Swarm: tests/lab/test_doctor.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from registrator.commands.finding import WARNING
from registrator.commands.swarm import live_restore, shared_names, troubles


def service(name: str, *networks: str, stack: str = "", looked_up: str = "", deploy: str = "") -> Any:
    labels = {"com.docker.stack.namespace": stack} if stack else {}
    if deploy:
        labels["SERVICE_NAME"] = deploy
    container = {"Image": "web", "Labels": {"SERVICE_NAME": looked_up}} if looked_up else {"Image": "web"}
    task = {"ContainerSpec": container, "Networks": [{"Target": network} for network in networks]}
    return {"ID": f"id-{name}", "Spec": {"Name": name, "Labels": labels, "TaskTemplate": task}}


def task(name: str, state: str, error: str = "", *, desired: str = "running", at: str = "1") -> Any:
    status = {"State": state, "Timestamp": at, **({"Err": error} if error else {})}
    return {"ServiceID": f"id-{name}", "DesiredState": desired, "Status": status}


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("no suitable node (scheduling constraints not satisfied on 3 nodes)", "--label-add"),
        ("no suitable node (insufficient resources on 3 nodes)", "resources.reservations"),
        ("no suitable node (host-mode port already in use on 1 node)", "choose another"),
        ("no suitable node (1 node not available for new tasks)", "docker node ls"),
        ("Minimum memory limit allowed is 6MB", "limits.memory"),
        ("task: non-zero exit (137)", "limits.memory"),
        ("No such image: web:2", "--with-registry-auth"),
        ("task: non-zero exit (1)", "docker service ps --no-trunc web"),
    ],
)
def test_a_task_that_does_not_run_is_told_with_the_remedy(error: str, remedy: str) -> None:
    tasks = [task("web", "pending"), task("web", "rejected", error, desired="shutdown")]
    (finding,) = troubles([service("web")], tasks)
    assert (finding.level, finding.about) == (WARNING, "service web")
    assert error in finding.what
    assert remedy in finding.remedy


def test_the_newest_word_is_told() -> None:
    old, new = (task("web", "failed", error, desired="shutdown", at=error) for error in ("1", "2"))
    (finding,) = troubles([service("web")], [new, old, task("web", "preparing")])
    assert finding.what.endswith("2")


def test_what_failed_once_and_runs_now_is_no_trouble() -> None:
    tasks = [task("web", "failed", "task: non-zero exit (1)", desired="shutdown"), task("web", "running")]
    assert not [*troubles([service("web")], tasks)]


def test_a_task_that_starts_is_no_trouble_and_tasks_of_removed_services_are_nobodys() -> None:
    assert not [
        *troubles([service("web")], [task("web", "starting"), task("gone", "pending", "no suitable node")])
    ]


def test_one_name_on_two_networks() -> None:
    (finding,) = shared_names([service("a_web", "a", looked_up="web"), service("b_web", "b", deploy="web")])
    assert (finding.level, finding.about) == (WARNING, "name web")
    assert "a_web and b_web" in finding.what
    assert "SERVICE_NAME" in finding.remedy


def test_a_renamed_service_whose_former_self_still_runs() -> None:
    one, other = (service(name, "a", stack="s", looked_up="web") for name in ("s_shop", "s_web"))
    (finding,) = shared_names([one, other])
    assert "--prune" in finding.remedy


def test_two_stacks_that_share_a_name_and_a_network_mean_it() -> None:
    one, other = (service(f"{stack}_web", "a", stack=stack, looked_up="web") for stack in "xy")
    assert not [*shared_names([one, other, service("redis", "b")])]


def test_live_restore() -> None:
    (finding,) = live_restore({"LiveRestoreEnabled": True})
    assert "Swarm" in finding.what
    assert not live_restore({"LiveRestoreEnabled": False})
    assert not live_restore({})
