"""The server of a live restore, asked as Ceph and others ask it."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, TargetError
from backy_sources_ceph import serving
from backy_sources_ceph.serving import QcowFile, served
from tests.backy_sources_ceph.live.conftest import SIZE

TOKEN = "unguessable"
DAMAGED = 99
BROKEN = 96


class Image:
    """A stored image in memory: data in every third chunk."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[int] = []

    def chunk_id(self, index: int) -> bytes:
        return bytes(32 if index % 3 else 0).ljust(32, b"x")

    def chunk(self, index: int) -> bytes:
        self.asked.append(index)
        if index == DAMAGED:
            raise TargetError("chunk 99 is damaged")
        if index == BROKEN:
            raise ZeroDivisionError("a plugin is broken")
        return bytes([index % 251 + 1]) * min(CHUNK_SIZE, self.size - index * CHUNK_SIZE)


@pytest.fixture
def client() -> Iterator[http.client.HTTPConnection]:
    with served(Image(100 * CHUNK_SIZE), "127.0.0.1", 0, TOKEN) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        yield connection
        connection.close()


def ask(client: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, bytes]:
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("size", [512, CHUNK_SIZE, 3 * CHUNK_SIZE + 1024, SIZE])
def test_qemu_reads_the_same_image(size: int, tmp_path: Path) -> None:
    image = Image(size)
    raw, qcow = tmp_path / "raw", tmp_path / "qcow2"
    with raw.open("wb") as stream:
        for index in range(-(-size // CHUNK_SIZE)):
            data = image.chunk(index)
            stream.write(bytes(len(data)) if index % 3 else data)
    file = QcowFile(image)
    with qcow.open("wb") as stream:
        for offset in range(0, file.size, 3 * 2**20):
            stream.write(file.pread(offset, 3 * 2**20))
    assert qcow.stat().st_size == file.size
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow], check=True)


def test_holes_are_known_without_a_look_at_chunks() -> None:
    image = Image(2**40)
    image.chunk_id = lambda index: bytes(32) if index % 1000 else b"x" * 32
    file = QcowFile(image)
    tables = file.pread(0, 2**21 * 5)
    assert len(tables) == 2**21 * 5
    assert image.asked == []


def test_only_who_knows_the_path_gets_anything(client: http.client.HTTPConnection) -> None:
    for path in ("/", "/unguessabl", "/unguessable/", "/Unguessable", "/../unguessable", "/%75nguessable", "/é"):
        if path.isascii():
            assert ask(client, path, Range="bytes=0-7")[0] == 404
        client.close()
    assert ask(client, "/unguessable", Range="bytes=0-3") == (206, b"QFI\xfb")


def test_a_path_that_is_no_text_is_refused(client: http.client.HTTPConnection) -> None:
    client.connect()
    client.sock.sendall(b"GET /\xff\xfe HTTP/1.1\r\nRange: bytes=0-7\r\n\r\n")
    assert client.sock.recv(100).startswith(b"HTTP/1.1 404")


def test_requests_share_a_connection(client: http.client.HTTPConnection) -> None:
    assert ask(client, "/unguessable", Range="bytes=0-3")[0] == 206
    used = client.sock
    assert ask(client, "/unguessable", Range="bytes=4-7") == (206, b"\0\0\0\x02")
    assert client.sock is used is not None


@pytest.mark.parametrize("asked", ["", "bytes=0-", "bytes=-5", "bytes=7-3", "bytes=0-1,3-4", f"bytes={2**60}-{2**60}"])
def test_anything_but_one_range_is_refused(client: http.client.HTTPConnection, asked: str) -> None:
    status, _ = ask(client, "/unguessable", **({"Range": asked} if asked else {}))
    assert status == 416
    assert ask(client, "/unguessable", Range="bytes=0-3")[0] == 206


def test_a_long_range_is_answered_in_part(client: http.client.HTTPConnection) -> None:
    client.request("GET", "/unguessable", headers={"Range": f"bytes=8-{2**62}"})
    answer = client.getresponse()
    data = answer.read()
    assert answer.status == 206
    assert answer.headers["Content-Range"].startswith(f"bytes 8-{len(data) + 7}/")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_possible(client: http.client.HTTPConnection, method: str) -> None:
    client.request(method, "/unguessable")
    assert client.getresponse().status == 501


@pytest.mark.parametrize(("index", "error"), [(DAMAGED, "chunk 99 is damaged"), (BROKEN, "a plugin is broken")])
def test_damage_is_an_error_of_the_server(
    client: http.client.HTTPConnection, caplog: pytest.LogCaptureFixture, index: int, error: str
) -> None:
    start = 4 * 2**21 + index * CHUNK_SIZE
    client.connect()
    used = client.sock
    status, _ = ask(client, "/unguessable", Range=f"bytes={start}-{start}")
    assert status == 500
    # a librbd that connects again is a librbd that may crash
    assert ask(client, "/unguessable", Range="bytes=0-3") == (206, b"QFI\xfb")
    assert client.sock is used is not None
    assert f"what the image lacks can not be read: {error}" in caplog.text


def test_a_connection_on_which_nobody_asks_ends(
    client: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving._Handler, "timeout", 0.05)
    client.connect()
    assert client.sock.recv(1) == b""
    client.close()
    assert ask(client, "/unguessable", Range="bytes=0-3")[0] == 206
    assert not caplog.records


def test_who_goes_away_in_the_middle_is_no_error(
    client: http.client.HTTPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    client.request("GET", "/unguessable", headers={"Range": f"bytes=0-{16 * 2**20}"})
    client.sock.close()
    client.close()
    assert ask(client, "/unguessable", Range="bytes=0-3")[0] == 206
    assert not caplog.records
