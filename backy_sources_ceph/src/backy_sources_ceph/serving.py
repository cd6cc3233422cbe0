"""Serves a stored image by HTTP, in the form in which Ceph fetches images.

Ceph learns what is a hole only from the format qcow2: of a raw image it would copy all zeroes, too. So the image is
shown as a file of that format, of which nothing is stored: the tables follow from the map, and the data lie behind
them. See docs/interop/qcow2.txt of QEMU.
"""

import logging
import re
import secrets
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from backy.api import CHUNK_SIZE, ChunkedImage, TargetError, chunk_count
from backy.errors import raising

log = logging.getLogger(__name__)
_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{1,19})")
_LONGEST = 8 * CHUNK_SIZE
"""Bytes of an answer at most; Ceph asks for an object at a time."""
_BITS = 21
_CLUSTER = 1 << _BITS
"""Bytes of a cluster, the largest that qcow2 has; a chunk has several."""
_POINTERS = _CLUSTER // 8
"""Number of clusters that a table leads to."""
_TABLES = 3
"""Number of the cluster with the first table."""
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")


class QcowFile:
    """The image as a file of the format qcow2: a header, a table of tables, the tables, and all clusters in order."""

    def __init__(self, image: ChunkedImage) -> None:
        self._image = image
        # a client that reads a few pages soon reads more of the same chunk
        self._chunk = lru_cache(16)(image.chunk)
        clusters = chunk_count(image.size) * CHUNK_SIZE // _CLUSTER
        tables = -(-clusters // _POINTERS)
        self._first = _TABLES + tables
        self.size = (self._first + clusters) * _CLUSTER
        # the table of tables is in cluster 1, and in cluster 2 are counts of references, which only a writer looks at
        header = _HEADER.pack(b"QFI\xfb", 2, 0, 0, _BITS, image.size, 0, tables, _CLUSTER, 2 * _CLUSTER, 1, 0, 0)
        self._begin = header, _pointers(range(_TABLES, self._first)), b""

    def pread(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, `length` of them unless it ends before. Raises BackyError or OSError."""
        numbers = range(offset // _CLUSTER, -(-min(offset + length, self.size) // _CLUSTER))
        start = offset % _CLUSTER
        return b"".join(map(self._cluster, numbers))[start : start + length]

    def _cluster(self, number: int) -> bytes:
        if number < _TABLES:
            found = self._begin[number]
        elif number < self._first:
            start = self._first + (number - _TABLES) * _POINTERS
            numbers = range(start, min(start + _POINTERS, self.size // _CLUSTER))
            each = CHUNK_SIZE // _CLUSTER
            found = _pointers(one * any(self._image.chunk_id((one - self._first) // each)) for one in numbers)
        else:
            index, start = divmod((number - self._first) * _CLUSTER, CHUNK_SIZE)
            found = self._chunk(index)[start : start + _CLUSTER]
        return found.ljust(_CLUSTER, b"\0")


def _pointers(clusters: Iterable[int]) -> bytes:
    return b"".join((one * _CLUSTER).to_bytes(8, "big") for one in clusters)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    file: QcowFile
    path: bytes

    def handle_error(self, request: object, client_address: object) -> None:
        """Log it: clients come and go."""
        log.debug("%s, a client, has gone", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that a client needs one connection
    disable_nagle_algorithm = True
    timeout = 60  # who says nothing for longer has to connect again, as Ceph does
    server: _Server

    def do_GET(self) -> None:
        """Answer with a range of the file to who knows the path."""
        file, data, failed = self.server.file, b"", HTTPStatus.NOT_FOUND
        if secrets.compare_digest(self.path.encode(), self.server.path):
            failed = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            start, end = map(int, asked.groups()) if asked else (file.size, 0)
            try:
                data = file.pread(start, min(end + 1 - start, _LONGEST))
            except Exception as error:  # noqa: BLE001  # without an answer, Ceph would ask again for ever
                log.error("what the image lacks can not be read: %s", error)  # noqa: TRY400  # a line for the user
                failed = HTTPStatus.INTERNAL_SERVER_ERROR
        # an error leaves the connection open: librbd 16 may crash if its image is closed while it connects again
        self.send_response(HTTPStatus.PARTIAL_CONTENT if data else failed)
        if data:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{file.size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002  # as the class has it
        """Log that somebody asked, but not for which path: nobody else may know it."""
        log.debug("%s asks for a range", self.client_address)


@contextmanager
def served(image: ChunkedImage, host: str, port: int, token: str) -> Iterator[int]:
    """Serve an image at an address, to who knows `token`, and yield the port. Raises TargetError if that is in use."""
    with raising(TargetError, f"listening at {host}:{port}"):
        server = _Server((host, port), _Handler)
    server.file, server.path = QcowFile(image), f"/{token}".encode()
    with server, ExitStack() as stack:
        threading.Thread(target=server.serve_forever, name="live restore", daemon=True).start()
        stack.callback(server.shutdown)
        yield server.server_address[1]
