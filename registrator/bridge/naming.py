"""Names, ids and tags of instances: from what the keys, the policy and the container say."""

from __future__ import annotations

from registrator.bridge.bounds import beyond, clipped, longer_than
from registrator.bridge.labels import MAX_LABEL, Wishes, dns_safe, short, split_tags
from registrator.bridge.template import TemplateError, Templates, is_template
from registrator.limits import FACT_OCTETS, TAG_OCTETS, TAGS
from registrator.model import Container, Port, Problem
from registrator.policy import SEARCHED_NAMES, Policy


def default_name(container: Container, policy: Policy, templates: Templates, problems: list[Problem]) -> str:
    """The name of a service that nobody named: by template, else Swarm's, Compose's, the image's."""
    return clipped(_default_name(container, policy, templates, problems), FACT_OCTETS.value)


def _default_name(container: Container, policy: Policy, templates: Templates, problems: list[Problem]) -> str:
    if policy.name_template:
        try:
            name = templates.render(policy.name_template, trusted=True).strip()
        except TemplateError as error:
            problems.append(
                Problem(
                    "--name-template",
                    str(error),
                    "correct the template; the usual name is used",
                    error.limit,
                )
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


class Tags:
    """The tags of one container: each list of them is read once, however many ports it holds for."""

    def __init__(self, templates: Templates, policy: Policy) -> None:
        self._templates = templates
        self._policy = policy
        self._read: dict[tuple[str, str], tuple[str, ...]] = {}

    def of(self, port: Port, wishes: Wishes, problems: list[Problem]) -> tuple[str, ...]:
        """The container's own tags, the operator's, and "udp"; sorted, as the catalog reports them."""
        own = self._of(("SERVICE_TAGS", wishes.tags), problems)
        forced = self._of(("--tags", self._policy.tags), problems)
        protocol = ("udp",) if port.protocol == "udp" else ()
        return tuple(sorted({*own, *forced, *protocol}))

    def _of(self, told: tuple[str, str], problems: list[Problem]) -> tuple[str, ...]:
        """A comma list of tags, its templates filled in; none where a template makes no sense."""
        if told not in self._read:
            source, text = told
            operator = source == "--tags"
            of_operator = operator and not is_template(text)  # a template shows what the container says
            try:
                if is_template(text):
                    text = self._templates.render(text, trusted=operator)
            except TemplateError as error:
                remedy = "correct the template; these tags are left out"
                problems.append(Problem(source, str(error), remedy, error.limit))
                text = ""
            tags = _few(source, split_tags(text), problems)
            self._read[told] = tags if of_operator else _believed(source, tags, problems)
        return self._read[told]


def _believed(source: str, tags: tuple[str, ...], problems: list[Problem]) -> tuple[str, ...]:
    """The tags without those that would be names that machines look up, and believe, by themselves."""
    refused = [tag for tag in tags if tag.partition(".")[0].lower() in SEARCHED_NAMES]
    if not refused:
        return tags
    problems.extend(
        Problem(source, f"may not have the tag {short(tag)!r}, it is left out", "choose another tag")
        for tag in refused
    )
    return tuple(tag for tag in tags if tag not in refused)


def _few(source: str, tags: tuple[str, ...], problems: list[Problem]) -> tuple[str, ...]:
    """The tags that are within the limits."""
    if len(tags) > TAGS.value:
        problems.append(beyond(TAGS, source, "give fewer tags"))
        tags = tags[: TAGS.value]
    long = [tag for tag in tags if longer_than(TAG_OCTETS.value, tag)]
    problems += [beyond(TAG_OCTETS, f"{source} {short(tag)}", "shorten it") for tag in long]
    return tuple(tag for tag in tags if tag not in long)
