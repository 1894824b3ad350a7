"""The command line: options -> Settings -> agent.run().

Every error is one line on standard error: exit 2 for a command that makes no
sense, 1 for one that failed.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path
from typing import Any

import click

from registrator import __version__
from registrator.commands.doctor import doctor
from registrator.commands.show import explain, lookup, services
from registrator.commands.watch import watch
from registrator.compat import DOCKER_SOCKET, NAME_BY_IMAGE, CompatError, is_compat, translate
from registrator.dns_options import dns_options, read_dns
from registrator.logs import set_up
from registrator.maintenance import maintenance
from registrator.model import Failure
from registrator.options import option
from registrator.policy import DENIED_NAMES, Policy
from registrator.printable import printable
from registrator.settings import (
    SettingError,
    Settings,
    parse_constraint,
    parse_consul,
    parse_domain,
    parse_hosts,
    parse_ip,
    parse_ips,
    parse_listens,
    parse_meta,
    parse_names,
    parse_seconds,
)

USAGE, FAILURE = 2, 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="registrator")
def cli() -> None:
    """Service discovery for containers: found by name over DNS and HTTP, with Consul or without."""


@cli.command()
@option(
    "--docker",
    metavar="URL",
    default="",
    help="The engine.  [default: DOCKER_HOST, else the standard socket]",
)
@option(
    "--consul",
    metavar="URL",
    default="",
    help="Register with this Consul agent: http://, https:// or unix://, or env for CONSUL_HTTP_ADDR."
    "  [default: none, an embedded catalog]",
)
@option("--consul-token-file", metavar="FILE", default="", help="A file with the ACL token.")
@option(
    "--max-stale",
    metavar="DURATION",
    default="0",
    help="How long to answer from the last known state while Consul is away, then SERVFAIL (HTTP: 503); "
    "0 is without end.  [default: 0]",
)
@option(
    "--dns",
    metavar="ADDR:PORT",
    multiple=True,
    default=("127.0.0.1:8053",),
    show_default=True,
    help="Answer DNS here, UDP and TCP; repeatable; off.",
)
@option(
    "--dns-link-local",
    metavar="ADDR",
    default="",
    help="Put ADDR (say 169.254.53.53) on the node's loopback and answer DNS there on port 53, "
    "for containers with `dns: [ADDR]`; needs CAP_NET_ADMIN and the host's network.",
)
@option(
    "--http",
    metavar="ADDR:PORT",
    multiple=True,
    default=("127.0.0.1:8580",),
    show_default=True,
    help="Answer HTTP here; repeatable; off.",
)
@option(
    "--http-host",
    metavar="NAME",
    multiple=True,
    help="Serve HTTP requests for this name too, for instance a reverse proxy's; repeatable.",
)
@option(
    "--reuse-port",
    is_flag=True,
    help="Share all these ports with another agent of the same user, so that a new one takes over from the "
    "old one without a lookup lost.",
)
@option(
    "--domain", metavar="NAME", default="consul", show_default=True, help="The DNS zone that is answered."
)
@dns_options
@option(
    "--ip",
    metavar="ADDR",
    multiple=True,
    help="The node's address for published ports, one of each family.  "
    "[default: the Swarm node address, else that of the default route]",
)
@option(
    "--internal", is_flag=True, help="Prefer container address and port to node address and published port."
)
@option("--explicit", is_flag=True, help="Only containers that name a service.")
@option(
    "--network", metavar="NAME", multiple=True, help="Prefer this network's address; repeatable, best first."
)
@option(
    "--ip-from-label", metavar="LABEL", default="", help="Take a service's address from this container label."
)
@option(
    "--ip-from-network",
    metavar="NAME",
    default="",
    help="Register container address and port on this network.",
)
@option(
    "--exposed-by-default",
    type=bool,
    metavar="BOOL",
    default=True,
    show_default=True,
    help="false: only containers with the label registrator.enable=true.",
)
@option(
    "--constraint",
    metavar="EXPR",
    multiple=True,
    help="Only containers whose labels fulfil it: key, !key, key=value, key!=value; repeatable.",
)
@option(
    "--tags",
    metavar="LIST",
    default="",
    help="Tags for every service, separated by commas; may hold templates.",
)
@option("--meta", metavar="KEY=VALUE", multiple=True, help="Metadata for every service; repeatable.")
@option(
    "--name-template",
    metavar="TEMPLATE",
    default="",
    help='The name of what names no service, say {{index .Config.Labels "app"}}.',
)
@option(
    "--allow-names",
    metavar="GLOB",
    multiple=True,
    help="Let containers take only service names that match, say 'web*'; repeatable.  [default: any]",
)
@option(
    "--deny-names",
    metavar="GLOB",
    multiple=True,
    default=DENIED_NAMES,
    show_default=True,
    help="Let no container take a service name that matches; repeatable, '' denies none.",
)
@option("--allow-script-checks", is_flag=True, help="Let labels ask for checks that run a command.")
@option(
    "--own-checks-only",
    is_flag=True,
    help="Refuse health checks whose target is not the container itself, and follow no redirects.",
)
@option(
    "--deregister",
    type=click.Choice(["always", "on-success", "never"]),
    default="always",
    show_default=True,
    help="What becomes of a dead container's services: on-success keeps, as critical, what failed by itself.",
)
@option(
    "--deregister-after",
    metavar="DURATION",
    default="0",
    show_default=True,
    help="Let the catalog drop what has been critical so long (at least 1m); 0 is never.",
)
@option(
    "--resync",
    type=click.FloatRange(min=1, max=86400),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Compare everything at least this often.",
)
@option(
    "--linger",
    metavar="DURATION",
    default="0",
    show_default=True,
    help="Keep serving this long after SIGTERM: a drained Swarm node stops all its tasks at once.",
)
@option("--deregister-on-exit", is_flag=True, help="Take this node's services out of the catalog on exit.")
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least level that is logged.",
)
@option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people or for machines.",
)
def agent(**options: Any) -> None:  # noqa: ANN401 - click hands over what the options above declare
    """Keep the catalog true to this node's containers and answer lookups.

    \b
    Example: registrator agent --dns-link-local 169.254.53.53 --consul http://127.0.0.1:8500
    """  # noqa: D301 - click's own mark for lines that are not to be wrapped
    settings = read_settings(options)
    gc.disable()  # a tenth of the imports' time; `run` enables it again
    from registrator.agent import start  # noqa: PLC0415 - a wrong option is told before heavy imports

    set_up(settings.log_level, settings.log_format)
    start(settings)


@cli.command()
def version() -> None:
    """Print the version.

    Example: registrator version
    """
    click.echo(f"registrator {__version__}")


for command in (lookup, services, explain, watch, doctor):
    cli.add_command(command)


cli.add_command(maintenance)


def read_settings(options: dict[str, Any]) -> Settings:
    """Check the options together. Raises SettingError, which names the option."""
    read = _Reader(options)
    return Settings(
        docker=options["docker"],
        consul=read("consul", lambda text: parse_consul(text, os.environ, options["consul_token_file"])),
        max_stale=read("max_stale", parse_seconds) or 0.0,
        dns=read("dns", parse_listens) or (),
        dns_link_local=read("dns_link_local", parse_ip) or "",
        http=read("http", parse_listens) or (),
        http_hosts=read("http_host", parse_hosts) or (),
        reuse_port=options["reuse_port"],
        domain=read("domain", parse_domain) or "",
        dns_answers=read_dns(options, read),
        ips=read("ip", parse_ips) or (),
        policy=_policy(options, read),
        resync=options["resync"],
        deregister_on_exit=options["deregister_on_exit"],
        linger=read("linger", parse_seconds) or 0.0,
        log_level=options["log_level"],
        log_format=options["log_format"],
    )


def _policy(options: dict[str, Any], read: _Reader) -> Policy:
    return Policy(
        internal=options["internal"],
        explicit=options["explicit"],
        exposed_by_default=options["exposed_by_default"],
        constraints=read("constraint", lambda texts: tuple(map(parse_constraint, texts))) or (),
        networks=tuple(options["network"]),
        ip_from_label=options["ip_from_label"],
        ip_from_network=options["ip_from_network"],
        tags=options["tags"],
        name_template=options["name_template"],
        meta=read("meta", lambda texts: tuple(map(parse_meta, texts))) or (),
        allow_script_checks=options["allow_script_checks"],
        own_checks_only=options["own_checks_only"],
        allow_names=read("allow_names", parse_names) or (),
        deny_names=read("deny_names", parse_names) or (),
        deregister=options["deregister"],
        deregister_after=read("deregister_after", parse_seconds),
    )


class _Reader:
    """Parses options by name, so that an error says which option to correct."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def __call__(self, name: str, parse: Any) -> Any:  # noqa: ANN401
        value = self._options[name]
        if not value and name != "domain":
            return None
        try:
            return parse(value)
        except SettingError as error:
            raise SettingError(f"--{name.replace('_', '-')}: {error}") from None


def main() -> None:
    """Run the command line, gliderlabs/registrator's old one included; never returns."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a terminal lacks is written out
            stream.reconfigure(errors="backslashreplace")
    try:
        # Named, so that the shells' completion is found however we were started.
        code = cli.main(_arguments(sys.argv[1:]), prog_name="registrator", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "registrator"
        _fail(USAGE, f"{error.format_message().rstrip('.')}; see `{where} --help`")
    except (SettingError, CompatError) as error:
        _fail(USAGE, str(error))
    except Failure as failure:
        _fail(FAILURE, str(failure))
    except click.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _arguments(given: list[str]) -> list[str]:
    """The arguments as ours; the old command line also brings the defaults that it always had."""
    if not is_compat(given, tuple(cli.commands)):
        return given
    if Path(DOCKER_SOCKET).is_socket():
        os.environ.setdefault("DOCKER_HOST", f"unix://{DOCKER_SOCKET}")
    os.environ.setdefault("REGISTRATOR_NAME_TEMPLATE", NAME_BY_IMAGE)
    return translate(given)


def _fail(code: int, message: str) -> None:
    click.echo(f"registrator: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)
