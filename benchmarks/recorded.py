"""An engine on a socket that replays a real one's documents, for a node with any number of containers.

    python -m benchmarks.recorded SOCKET DOCKER CONTAINER NUMBER

Takes the listing and the inspection of one real container whose service is
called `SERVICE`, and answers with NUMBER copies that differ in id, name,
address and (one in `SHARE`) service. It says "ready" when it listens.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from email.utils import formatdate

from benchmarks import raw

SERVICE = "recorded-service"
SHARE = 20  # containers of one service
ID = re.compile(r"/containers/([0-9a-f]{64})/json")


class Recording:
    """The documents of a node with many containers, as bytes to send."""

    def __init__(self, docker: str, container: str, number: int) -> None:
        engine = raw.connect(docker)
        filters = f"filters=%7B%22id%22%3A%5B%22{container}%22%5D%7D"
        listing = raw.ask(engine, "GET", f"/containers/json?{filters}")[0].decode()
        inspected = raw.ask(engine, "GET", f"/containers/{container}/json")[0].decode()
        name = json.loads(inspected)["Name"].removeprefix("/")
        (network,) = json.loads(inspected)["NetworkSettings"]["Networks"].values()
        self.info = raw.ask(engine, "GET", "/info")[0]

        def copy(document: str, index: int) -> str:
            """The document with an id, a name and an address of its own."""
            address = f"10.{100 + index // 65536}.{index // 256 % 256}.{index % 256}"
            return (
                document.replace(container, f"{index:064x}")
                .replace(name, f"{name}-{index}")
                .replace(f'"{network["IPAddress"]}"', f'"{address}"')
                .replace(SERVICE, f"{SERVICE}-{index // SHARE}")
            )

        element = listing.strip()[1:-1]
        self.listing = f"[{','.join(copy(element, i) for i in range(number))}]".encode()
        self.inspected = {f"{i:064x}": copy(inspected, i).encode() for i in range(number)}


async def serve(recording: Recording, path: str) -> None:
    """Answer on a unix socket until killed."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                if "/events" in request:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                else:
                    writer.write(answer(recording, request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_unix_server(handle, path, backlog=128)
    print("ready", flush=True)
    await server.serve_forever()


def answer(recording: Recording, request: str) -> bytes:
    """A whole HTTP answer."""
    one, status = ID.search(request), "200 OK"
    if one and one[1] not in recording.inspected:  # Consul knows it from a real engine
        status, body = "404 Not Found", b'{"message":"No such container"}'
    elif one:
        body = recording.inspected[one[1]]
    elif "/containers/json" in request:
        body = recording.listing
    elif "/info" in request:
        body = recording.info
    else:
        body = b"OK"
    head = f"HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nDate: {formatdate(usegmt=True)}"
    return f"{head}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    socket_path, docker_url, container_id, copies = sys.argv[1:]
    asyncio.run(serve(Recording(docker_url, container_id, int(copies)), socket_path))
