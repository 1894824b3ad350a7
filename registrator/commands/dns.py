"""One DNS question, for commands: what a resolver would get."""

from __future__ import annotations

from registrator.model import Failure
from registrator.settings import Listen, SettingError

TIMEOUT = 5.0  # seconds


class NoRecords(Failure):
    """There was an answer, and no record in it; `rcode` is its name, such as NXDOMAIN."""

    def __init__(self, question: str, rcode: str) -> None:
        super().__init__(f"{question}: {rcode}, no records")
        self.rcode = rcode


def ask_dns(name: str, kind: str, domain: str, server: Listen, timeout: float = TIMEOUT) -> list[str]:
    """The answer section to a question, a record a line.

    `name` is a service's, or ends in `domain`. Raises NoRecords, SettingError
    for what cannot be asked, and Failure where nobody answers.
    """
    import dnslib  # noqa: PLC0415 - only who asks DNS needs it

    asked = name.rstrip(".")
    if asked != domain and not asked.endswith(f".{domain}"):
        asked = f"{asked}.service.{domain}"
    try:
        query = dnslib.DNSRecord.question(asked, kind.upper())
        query.pack()
    except (dnslib.DNSError, UnicodeError) as error:
        raise SettingError(f"{name}:{kind} cannot be asked ({error}); write for instance redis:SRV") from None
    try:
        packet = query.send(server.host, server.port, timeout=timeout, ipv6=":" in server.host)
        reply = dnslib.DNSRecord.parse(packet)
        records = [str(record) for record in reply.rr]
    except OSError as error:
        raise Failure(
            f"no DNS answer from {server} ({error}); is the agent there? --dns names another"
        ) from None
    except Exception as error:  # noqa: BLE001 - dnslib raises whatever a strange packet leads to
        raise Failure(f"what answers at {server} is no DNS server ({error}); --dns names another") from None
    if not records:
        raise NoRecords(f"{asked} {kind.upper()}", dnslib.RCODE.get(reply.header.rcode))
    return records
