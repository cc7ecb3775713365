"""Serves the page: a few files without any data in them. What the page shows and does goes through the API.

The files are read once, at the start; a name that is not among them is not looked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

FOLDER: Final = Path(__file__).parent / "files"
BASE: Final = "/page"
_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
#: nothing but our own files; `data:` is the icon in the browser's tab, which carries the verdict
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the page."""

    body: bytes
    media: str
    etag: str

    def response(self, request: web.Request) -> web.Response:
        """The file, or word that the browser has it already."""
        headers = {
            "Cache-Control": "no-cache",  # asked for each time, so that a new version is seen at once
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "ETag": f'"{self.etag}"',
            "Vary": "Accept",
        }
        known = request.if_none_match or ()
        if any(each.value in (self.etag, "*") for each in known):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.body, content_type=self.media, charset="utf-8", headers=headers)


def files() -> dict[str, File]:
    """All files of the page, by name.

    Raises:
        OSError: they cannot be read.
    """
    return {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}


def is_wanted(request: web.Request) -> bool:
    """Whether a browser asks, and not a program that reads text."""
    return "text/html" in request.headers.get("Accept", "")


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body=body, media=_TYPES[path.suffix], etag=hashlib.sha256(body).hexdigest()[:32])
