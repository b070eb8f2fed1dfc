"""the page's files, from monitor/web/ in the package

Read once; only what is there at the start is served. A file's ETag is a hash of it,
so that a browser asks each time and loads only what changed.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import msgspec

from tripost.gateway.monitor.http import Request, Response, problem

KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
    "png": "image/png",
    "ico": "image/x-icon",
}
INDEX = "index.html"


class File(msgspec.Struct, frozen=True):
    kind: str
    body: bytes
    tag: str


class Static:
    """`files`: name → what is served as /static/NAME, and index.html as /."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        folder = resources.files("tripost.gateway.monitor") / "web"
        if not folder.is_dir():
            return
        for one in folder.iterdir():
            kind = KINDS.get(one.name.rpartition(".")[2])
            if kind is not None and one.is_file():
                body = one.read_bytes()
                self.files[one.name] = File(kind, body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')

    def answer(self, request: Request) -> Response:
        name = INDEX if request.path == "/" else request.path.removeprefix("/static/")
        file = self.files.get(name)
        if file is None:
            return problem(404, "there is no such page")
        headers = (("ETag", file.tag), ("Cache-Control", "no-cache"))
        if file.tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
            return Response(status=304, headers=headers)
        return Response(kind=file.kind, body=file.body, headers=headers)
