"""The console with real sockets and, once, the program `telnet`, in this process: what it answers is made up."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from backy.scheduler.console import telnet as module
from backy.scheduler.console.telnet import Console
from backy.scheduler.process.base_directory import Reply

IAC, DONT, DO, WONT, WILL, SB, IP, SE = b"\xff", b"\xfe", b"\xfd", b"\xfc", b"\xfb", b"\xfa", b"\xf4", b"\xf0"
GREETING = b"backy 3.0.0\r\nReady.\r\nbacky> "
RELEASED = threading.Event()
REFUSED = b"Too many clients.\r\n"


async def answering(words: Sequence[str]) -> Reply:
    if words[0] == "long":
        return Reply(ok=True, text="x" * int(words[1]))
    if words[0] == "fail":
        return Reply(ok=False, text="this has failed")
    while words[0] == "wait" and not RELEASED.is_set():
        await asyncio.sleep(0.01)
    if words[0] == "break":
        raise ValueError("on purpose")
    return Reply(ok=True, text="\n".join(words))


class Server:
    """A console in a thread of its own."""

    def __init__(self) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self.console = Console(answering)
        await self.console.listen(["127.0.0.1"], 0)
        self.port = int(self.console.addresses[0].rpartition(":")[2])
        self._ready.set()
        await self._end.wait()
        self.console.close()
        while self.console.clients:
            await asyncio.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    @contextmanager
    def client(self) -> Iterator[Callable[[bytes], bytes]]:
        """Connect and give a function that sends something and returns what is answered, up to the next prompt."""
        with self.connect() as connection:

            def talk(sent: bytes) -> bytes:
                connection.sendall(sent)
                received = b""
                while not received.endswith(b"backy> "):
                    piece = connection.recv(65536)
                    assert piece, received
                    received += piece
                return received.removesuffix(b"backy> ")

            assert talk(b"") == GREETING.removesuffix(b"backy> ")
            yield talk

    def works(self) -> bool:
        """Tell whether somebody who comes now gets an answer."""
        with self.client() as talk:
            return talk(b"hello\r\n") == b"hello\r\n"


@pytest.fixture
def server(caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    caplog.set_level(logging.INFO)
    with Server() as running:
        yield running
    assert [record for record in caplog.records if record.exc_info and "on purpose" not in str(record.exc_info)] == []


def greeted(connection: socket.socket) -> bool:
    """Tell whether a client gets in: before that, it might not be among the clients yet."""
    answer = b""
    while answer != GREETING and (piece := connection.recv(len(GREETING) - len(answer))):
        answer += piece
    return answer == GREETING


def end(connection: socket.socket) -> bytes:
    """Return what is sent until the connection ends, however it does."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def test_the_program_telnet_gets_answers(server: Server) -> None:
    with subprocess.Popen(
        ["telnet", "127.0.0.1", str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as telnet:
        telnet.stdin.write(b"one two\nquit\n")
        telnet.stdin.flush()
        assert (
            telnet.stdout.read()
            .replace(b"\r", b"")
            .endswith(b"backy 3.0.0\nReady.\nbacky> one\ntwo\nbacky> Goodbye.\n")
        )


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r\0", b"\r"])
def test_lines_end_as_they_like(server: Server, line_end: bytes) -> None:
    with server.client() as talk:
        assert talk(b"one two" + line_end) == b"one\r\ntwo\r\n"


def test_a_client_that_sends_no_more_gets_its_answers(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"one\nlong 300000\nunfinished")
        connection.shutdown(socket.SHUT_WR)
        assert end(connection) == GREETING + b"one\r\nbacky> " + b"x" * 300_000 + b"\r\nbacky> "


@pytest.mark.parametrize("leave", [b"quit\n", b" exit \n"])
def test_who_wants_to_leave_may(server: Server, leave: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(leave)
        assert end(connection) == GREETING + b"Goodbye.\r\n"


def test_what_fails_is_told_and_ends_nothing(server: Server) -> None:
    with server.client() as talk:
        assert talk(b"fail\r\n") == b"this has failed\r\n"
        assert talk(b"again\r\n") == b"again\r\n"


def test_an_error_in_a_command_ends_one_connection_only(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with server.connect() as connection:
        connection.sendall(b"break\n")
        assert end(connection) == GREETING
    assert "ValueError: on purpose" in caplog.text
    assert server.works()


def test_empty_lines_and_unprintable_characters_are_nothing(server: Server) -> None:
    with server.client() as talk:
        assert talk(b"\r\n") == b""
        assert talk(b" \t \r\n") == b""
        assert talk(b"a\x00\x1b\x07b \xff\xff\xc3\xa4 \xe4\r\n") == "ab\r\n\ufffdä\r\n\ufffd\r\n".encode()


def test_options_of_telnet_are_answered(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(IAC + DO + b"\x18" + IAC + WILL + b"\x56" + IAC + DO + b"\x57" + b"quit\n")
        received = end(connection)
    assert IAC + WONT + b"\x18" in received or received.count(IAC) == 2
    assert IAC + DONT + b"\x56" in received
    assert IAC + WONT + b"\x57" in received
    assert received.endswith(b"Goodbye.\r\n")


def test_an_interrupt_leaves_the_console_usable(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(IAC + IP + IAC + DO + b"\x06" + b"quit\r\n")
        received = end(connection)
    assert IAC + WILL + b"\x06" in received
    assert received.endswith(b"Goodbye.\r\n")


def test_compression_bombs_do_not_go_off(server: Server) -> None:
    bomb = zlib.compress(bytes(50_000_000))
    with server.connect() as connection, suppress(OSError):  # the other end may be gone
        connection.sendall(IAC + SB + b"\x57" + IAC + SE + bomb)
        connection.shutdown(socket.SHUT_WR)
        end(connection)
    assert server.works()


@pytest.mark.parametrize(
    "flood",
    [b"x", IAC + b"\xf1", IAC + WILL + b"\x18", IAC + SB + b"\x18", b"\0", IAC + SB + b"x" * 5000],
    ids=["text", "nop", "will", "begin", "null", "unending"],
)
def test_who_sends_without_end_is_disconnected(server: Server, flood: bytes) -> None:
    content = flood * (10_000_000 // len(flood))
    with server.connect() as connection, pytest.raises(ConnectionError):
        connection.sendall(content)
    assert server.works()


def test_many_lines_at_once_are_answered_one_by_one(server: Server) -> None:
    with server.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(b"one two three\r\n" * 20_000 + b"quit\r\n",))
        sender.start()
        received = end(connection)
        sender.join()
    assert received.count(b"three\r\n") == 20_000
    assert received.endswith(b"Goodbye.\r\n")


def test_who_does_not_take_what_he_asked_for_is_disconnected(
    server: Server, monkeypatch: pytest.MonkeyPatch, eventually: Callable
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(module, "SLOWNESS", module.SLOWNESS / 100)
        with server.connect() as connection:
            assert greeted(connection)
            connection.sendall(b"long 50000000\n")
            eventually(lambda: not server.console.clients)
            assert len(end(connection)) < 50_000_000
    assert server.works()


def test_who_says_nothing_is_disconnected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", module.SILENCE / 10_000)
    with server.connect() as connection:
        assert end(connection) == GREETING


def test_half_open_connections_take_no_place_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch, rounds, eventually: Callable
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(module, "SILENCE", module.SILENCE / 1000)
        for _ in range(rounds(50, 1000)):
            connection = server.connect()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # by a reset
        with ExitStack() as open_ones:
            quiet = [open_ones.enter_context(server.connect()) for _ in range(module.MOST_CLIENTS)]
            assert {end(connection) for connection in quiet} <= {GREETING, REFUSED}
        eventually(lambda: not server.console.clients)
    assert server.works()


def test_those_who_are_silent_lock_out_nobody(server: Server) -> None:
    with ExitStack() as open_ones:
        silent = [open_ones.enter_context(server.connect()) for _ in range(module.MOST_CLIENTS)]
        assert all(greeted(client) for client in silent)
        silent[0].sendall(b"one\n")
        assert silent[0].recv(100)
        assert server.works()
        # the one that was silent for longest went, and nobody else
        with suppress(ConnectionError):
            assert end(silent[1]) == b""
        for client in (silent[0], *silent[2:4]):
            client.sendall(b"quit\n")
            assert end(client).endswith(b"Goodbye.\r\n")


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /run/db1 HTTP/1.0", b"PRI * HTTP/2.0", b"run db1 HTTP/1.1"])
def test_a_line_of_http_ends_the_connection(server: Server, line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    async def note(words: Sequence[str]) -> Reply:
        asked.append(words)
        return Reply(ok=True, text="")

    monkeypatch.setattr(server.console, "answering", note)
    with server.connect() as connection:
        # what follows may be chosen by a page that a browser shows
        connection.sendall(line + b"\r\nrunall\r\nHost: localhost\r\n\r\nrunall\r\n")
        assert end(connection) == GREETING
    assert asked == []


def test_there_is_an_end_of_clients(server: Server, rounds, eventually: Callable) -> None:
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(server.connect()) for _ in range(module.MOST_CLIENTS)]
        assert all(greeted(client) for client in clients)
        for client in clients:
            client.sendall(b"wait\n")
        eventually(lambda: all(client.silent_since is None for client in server.console.clients))
        others = [open_ones.enter_context(server.connect()) for _ in range(rounds(100, 1000 - module.MOST_CLIENTS))]
        assert {end(other) for other in others} == {REFUSED}
        RELEASED.set()
    eventually(lambda: not server.console.clients)
    assert server.works()


def test_whatever_is_sent_the_console_goes_on(server: Server, rounds) -> None:
    chance = random.Random(8)
    words = [
        IAC,
        IAC + IAC,
        SB,
        SE,
        WILL,
        WONT,
        DO,
        DONT,
        b"\r",
        b"\n",
        b"\0",
        b"quit",
        b"long 70000",
        b"fail",
        b"jobs (",
    ]
    for _ in range(rounds(300, 10_000)):
        parts = [
            chance.choice(words) if chance.random() < 0.7 else chance.randbytes(9) for _ in range(chance.randint(0, 40))
        ]
        with server.connect() as connection, suppress(OSError):  # the other end may be gone
            connection.sendall(b"".join(parts))
            if chance.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)
                end(connection)
    assert server.works()


def test_an_address_that_can_not_be_had_is_told_and_the_others_are_used(caplog: pytest.LogCaptureFixture) -> None:
    async def listen() -> Console:
        console = Console(answering)
        await console.listen(["192.0.2.1", "nowhere", "127.0.0.1"], 0)
        console.close()
        return console

    console = asyncio.run(listen())
    assert [address.partition(":")[0] for address in console.addresses] == ["127.0.0.1"]
    assert [text.rpartition(": ")[0] for text in console.problems] == [
        "the console can not listen at 192.0.2.1 port 0",
        "the console can not listen at nowhere port 0",
    ]
    assert "192.0.2.1" in caplog.text


def test_both_families_of_addresses_can_be_had_with_one_port() -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("NOT TESTED: the kernel has no IPv6")

    async def listen() -> tuple[str, ...]:
        console = Console(answering)
        await console.listen(["127.0.0.1"], 0)
        port = int(console.addresses[0].rpartition(":")[2])
        await console.listen(["::1", "127.0.0.1"], port)
        console.close()
        return console.addresses

    six, four = asyncio.run(listen())
    assert six.startswith("[::1]:")
    assert four.startswith("127.0.0.1:")
