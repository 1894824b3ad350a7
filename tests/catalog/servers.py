"""Small real servers for probes to ask, and what the probes' tests share."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from registrator.settings import join_host_port
from tests.support import unavailable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """An HTTP server on a port of its own; yields its base URL without a final slash."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://{join_host_port(host, port)}"
    finally:
        await runner.cleanup()


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer as the path says: a number is the HTTP code, a word one of the odd cases."""
    path = request.path.strip("/")
    if path in ODD:
        return await ODD[path](request)
    return web.Response(status=int(path), text="hello")


async def _moved(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/200"})


async def _round(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/round"})


async def _long(_: web.Request) -> web.StreamResponse:
    return web.Response(text="a" * 5000 + "the end")


async def _bytes(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xffabc\xfe")


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"a part")
    assert request.transport is not None
    request.transport.close()
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    await asyncio.sleep(60)
    return response


async def _slow(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


ODD: Mapping[str, Handler] = {
    "moved": _moved,
    "round": _round,  # redirects without end
    "long": _long,
    "bytes": _bytes,  # no text in any encoding
    "cut": _cut,  # less body than announced
    "endless": _endless,  # headers at once, a body that does not end
    "slow": _slow,  # nothing
}


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS context with a certificate for 127.0.0.1 that nobody vouches for."""
    if shutil.which("openssl") is None:
        reason = "no openssl on the PATH to make a certificate with; install the package openssl"
        unavailable(reason)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def eventually(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Return as soon as `condition()` holds; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)
