"""A server of objects on loopback, whose changes can fail, or kill its client: see `Blobs`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from backy.testing.memory import MemoryBlobs


class Blobs(MemoryBlobs):
    """Objects of which a change can fail, or do something; changes are counted from now, 1 the next one."""

    def __init__(self) -> None:
        self.changes = 0
        self.acts: dict[tuple[int, bool], Callable[[], object]] = {}
        super().__init__()

    def at(self, change: int, act: Callable[[], object], *, after: bool = False) -> None:
        """Call `act` right before or after a change."""
        self.acts[self.changes + change, after] = act

    def fail(self, change: int) -> None:
        def failing() -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.at(change, failing)

    def __setitem__(self, name: str, content: bytes) -> None:
        with self.acting():
            super().__setitem__(name, content)

    def __delitem__(self, name: str) -> None:
        with self.acting():
            super().__delitem__(name)

    @contextmanager
    def acting(self) -> Iterator[None]:
        self.changes += 1
        number = self.changes
        self.acts.get((number, False), lambda: None)()
        yield
        self.acts.get((number, True), lambda: None)()


class ObjectServer:
    """Objects in memory, by name; `blobs` can be changed at any time."""

    def __init__(self) -> None:
        self.blobs = Blobs()
        self.lock = Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            # the names are those of http.server
            do_HEAD = do_PUT = do_DELETE = do_LIST = do_GET  # noqa: N815  # likewise

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/vm"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/vm/")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self.lock:
            status, content = self.done(request.command, name, body, once="If-None-Match" in request.headers)
        try:
            request.send_response(status)
            if request.command == "HEAD" and status == 200:
                request.send_header("X-Size", str(len(content)))
            else:
                request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)
        except OSError:
            pass  # the client was killed

    def done(self, method: str, name: str, body: bytes, *, once: bool) -> tuple[int, bytes]:
        if method == "LIST":
            objects = [(key.removeprefix(f"{name}/"), blob) for key, blob in self.blobs.items() if key.startswith(name)]
            found = [(key, hashlib.sha256(blob).hexdigest(), len(blob)) for key, blob in objects]
            return 200, json.dumps(found).encode()
        if method in {"GET", "HEAD"}:
            return (200, self.blobs[name]) if name in self.blobs else (404, b"")
        try:
            return self.changed(method, name, body, once=once), b""
        except OSError:
            return 500, b""

    def changed(self, method: str, name: str, body: bytes, *, once: bool) -> int:
        if method == "DELETE":
            return 200 if self.blobs.pop(name, None) is not None else 404
        if once and name in self.blobs:
            return 412
        self.blobs[name] = body
        return 200
