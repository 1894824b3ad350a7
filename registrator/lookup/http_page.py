"""The page at `/`: four files of this package, read once, under a policy that allows nothing else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# No inline script or style, no other host: a hostile label that became markup could still do nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class PageRoutes:
    """The files by path; they change with the agent alone, so browsers ask whether theirs is still right."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return dict.fromkeys(FILES, self._file)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        if not self._files:
            self._files = await asyncio.to_thread(_read)
        body = self._files[request.path]
        tag = f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        kind = FILES[request.path][1]
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)


def _read() -> dict[str, bytes]:
    folder = resources.files("registrator.lookup") / "page"
    return {path: (folder / name).read_bytes() for path, (name, _) in FILES.items()}
