"""A server between the storage and the gateway, which counts requests, and lets some of them fail."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from backy.testing import memory


class Request(NamedTuple):
    """What a fault is decided by."""

    number: int
    kind: str
    """GET, LIST, PUT or DELETE."""
    name: str
    """The object's name in its prefix; that of a list is empty."""


Fault = Callable[[Request], str | None]
"""Returns how a request fails: `drop` without effect, `lose` the answer only, or a status such as `503 SlowDown`."""
CHANGES = {"PUT", "DELETE"}


class Proxy:
    def __init__(self, host: str, port: int) -> None:
        self.upstream = host, port
        self.counts: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.fault: Fault = lambda _: None
        self.killing: Callable[[], object] = lambda: None
        self.lock = Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # in one packet, and at once: else each answer waits 40 ms for the client's kernel
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                proxy.answer(self)

            do_HEAD = do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815  # the names that http.server looks for

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing of clients that were killed."""

        self.http = Server(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def forget(self) -> None:
        """Count from now."""
        self.counts.clear()
        self.requests.clear()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        request = self.noted(handler)
        failure = self.fault(request) or (refused() if request.kind in CHANGES else None)
        if failure and failure.split()[0] not in {"drop", "lose"}:
            status, _, code = failure.partition(" ")
            self.reply(handler, int(status), {}, f"<Error><Code>{code}</Code></Error>".encode())
            return
        if failure != "drop":
            status, headers, content = self.forwarded(handler, body)
        if failure == "lose kill":
            self.killing()
        if failure:
            handler.close_connection = True
            return
        self.reply(handler, status, headers, content)

    def noted(self, handler: BaseHTTPRequestHandler) -> Request:
        url = urlsplit(handler.path)
        words = parse_qs(url.query, keep_blank_values=True)
        kind = "LIST" if handler.command == "GET" and words.keys() & {"list-type", "versions"} else handler.command
        kind = "DELETE" if "delete" in words else kind
        with self.lock:
            name = "" if kind == "LIST" else "/".join(url.path.split("/")[3:])
            request = Request(len(self.requests), kind, name)
            self.requests.append(request)
            self.counts[kind] += 1
        return request

    def forwarded(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(*self.upstream, timeout=60)
        try:
            # the signature has the host that the client knows
            headers = {name: text for name, text in handler.headers.items() if name.lower() != "connection"}
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    @staticmethod
    def reply(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        handler.send_response_only(status)
        for name, text in headers.items():
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                handler.send_header(name, text)
        length = headers.get("Content-Length", "0") if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)


def refused() -> str | None:
    """Return how a change fails that a recording lets fail, if one runs."""
    try:
        memory.changing()
    except OSError as error:
        return "403 QuotaExceeded" if error.errno == errno.ENOSPC else "503 SlowDown"
    return None
