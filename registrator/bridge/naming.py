"""Names, ids and tags of instances: from what the keys, the policy and the container say."""

from __future__ import annotations

from registrator.bridge.labels import MAX_LABEL, Wishes, dns_safe, short, split_tags
from registrator.bridge.template import TemplateError, is_template, render
from registrator.model import Container, Port, Problem
from registrator.policy import SEARCHED_NAMES, Policy


def default_name(container: Container, policy: Policy, problems: list[Problem]) -> str:
    """The name of a service that nobody named: by template, else Swarm's, Compose's, the image's."""
    if policy.name_template:
        try:
            name = render(policy.name_template, container, trusted=True).strip()
        except TemplateError as error:
            problems.append(
                Problem("--name-template", str(error), "correct the template; the usual name is used")
            )
        else:
            if name:
                return name
    if container.task is not None:
        return container.task.service
    return container.compose_service or image_name(container.image)


def image_name(image: str) -> str:
    """The base name of an image: "registry:5000/team/redis:7@sha256:..." is "redis"."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def with_suffix(name: str, port: Port) -> str:
    """A name with its port, short enough for a DNS label."""
    suffix = f"-{port.number}"
    return dns_safe(name)[: MAX_LABEL - len(suffix)].rstrip("-") + suffix


def port_id(port: Port) -> str:
    """The last part of an instance's id: "80" for tcp, "53:udp" else."""
    return str(port.number) if port.protocol == "tcp" else f"{port.number}:{port.protocol}"


def all_tags(
    container: Container, port: Port, wishes: Wishes, policy: Policy, problems: list[Problem]
) -> tuple[str, ...]:
    """The container's own tags, the operator's, and "udp"; sorted, as the catalog reports them."""
    own = _believed(_tags("SERVICE_TAGS", wishes.tags, container, problems), problems)
    forced = _tags("--tags", policy.tags, container, problems)
    protocol = ("udp",) if port.protocol == "udp" else ()
    return tuple(sorted({*own, *forced, *protocol}))


def _believed(tags: tuple[str, ...], problems: list[Problem]) -> tuple[str, ...]:
    """The tags without those that would be names that machines look up, and believe, by themselves."""
    refused = [tag for tag in tags if tag.partition(".")[0].lower() in SEARCHED_NAMES]
    if not refused:
        return tags
    problems.extend(
        Problem("SERVICE_TAGS", f"may not have the tag {short(tag)!r}, it is left out", "choose another tag")
        for tag in refused
    )
    return tuple(tag for tag in tags if tag not in refused)


def _tags(source: str, text: str, container: Container, problems: list[Problem]) -> tuple[str, ...]:
    """A comma list of tags, its templates filled in; none where a template makes no sense."""
    if not is_template(text):
        return split_tags(text)
    try:
        return split_tags(render(text, container, trusted=source == "--tags"))
    except TemplateError as error:
        problems.append(Problem(source, str(error), "correct the template; these tags are left out"))
        return ()
