"""One side of a copy that says what it likes: messages that were recorded, or made up, are played to the other side."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from backy.copies.copies import arrive, pull, push, serve
from backy.durable import read_file
from backy.errors import BackyError
from backy.exchange.arrival import Arrival
from backy.exchange.wire import Chunk, Files, List, Listing, Message, Wire
from backy.making.making import sourceless
from backy.repository.repository import Repository
from backy.testing.clock import Clock
from backy.testing.laboratory import Laboratory, patterned
from backy_storages_chunked import backy_storage
from tests.copying import PASSING, Talk, same

MEMORY = Path("/dev/shm")
Said = Iterable[Message | bytes]


class Play:
    """Three small revisions, a copy that has the first one, and what both sides say when it gets the others."""

    def __init__(self, folder: Path, storage: str = "chunked") -> None:
        self.origin = Laboratory(folder / "origin/vm", Clock(), {"type": "chunked"})
        self.copy = folder / "copy/vm"
        self.origin.directory.parent.mkdir()
        self.origin.content = bytes(4 * 2**20) + patterned(1)[: 5 * 4096]
        self.origin.initialize()
        self.origin.backup()
        with pytest.MonkeyPatch.context() as patched:
            talk = Talk()
            patched.setattr("backy.copies.copies.connected", talk.connected)
            pull(self.copy, str(self.origin.directory), config=sourceless(storage))
            self.origin.content = bytes(4 * 2**20) + patterned(1, 2)[: 5 * 4096]
            self.origin.backup()
            self.origin.content = patterned(5) + patterned(1, 2)[: 6 * 4096]
            self.origin.backup()
            self.revisions = self.origin.open().records.history()
            self.before = files(self.copy)
            pushed, pulled = list[Message](), list[Message]()
            for said, action in ((pushed, push), (pulled, pull)):
                self.reset()
                patched.setattr(Wire, "send", _recording(Wire.send, said))
                here, there = (
                    (self.origin.directory, self.copy) if action is push else (self.copy, self.origin.directory)
                )
                action(here, str(there))
                patched.undo()
                patched.setattr("backy.copies.copies.connected", talk.connected)
            assert not talk.errors
        self.length = len(pulled)
        """How many messages a pull takes."""
        self.after = files(self.copy)
        self.reset()
        offered = (Listing, Files, Chunk)
        self.pushing = [one for one in pushed if isinstance(one, offered) or one is pushed[0]]
        """What `backy push` says."""
        self.sending = [one for one in pulled if isinstance(one, offered)]
        """What `backy serve --read-only` says."""
        self.asking = [one for one in pulled if not isinstance(one, offered)]
        """What `backy pull` says."""

    def reset(self) -> None:
        """Let the copy be as it was."""
        for path in [*self.copy.rglob("*")]:
            if not path.is_dir() and str(path.relative_to(self.copy)) not in self.before:
                path.unlink()
        for name, content in self.before.items():
            path = self.copy / name
            if isinstance(content, str):
                path.unlink(missing_ok=True)
                path.symlink_to(content)
            elif not path.exists() or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.write_bytes(content)

    def append(self, said: Said) -> str | None:
        """Say this to `backy serve --append`; return the error."""
        return self._said(lambda wire: serve(self.copy, wire, appending=True), said)

    def send(self, said: Said) -> str | None:
        """Say this to `backy pull`; return the error."""

        def receive(wire: Wire) -> None:
            arrive(Arrival(Repository.open(self.copy), [wire], wire.ask(List(), Listing), "there"))

        return self._said(receive, said)

    def ask(self, said: Said) -> str | None:
        """Say this to `backy serve --read-only`; return the error."""
        return self._said(lambda wire: serve(self.origin.directory, wire, appending=False), said)

    def _said(self, side: Callable[[Wire], object], said: Said) -> str | None:
        content = b"".join(one if isinstance(one, bytes) else framed(one) for one in said)
        try:
            # to look for plugins takes longer than all the rest
            with patch.object(Repository, "plugin", lambda _, kind, section, job: backy_storage(section, job)):
                side(Wire(io.BytesIO(content), io.BytesIO()))
        except (BackyError, OSError) as error:
            return str(error)
        return None

    def unchanged(self) -> None:
        """See that the copy is what it was, but for chunks that are what their ids say, which harm nobody."""
        now = files(self.copy)
        for name, content in now.items():
            if name not in self.before and name.startswith("chunks/"):
                assert name.endswith("unfinished") or content in {self.after.get(name), self.origin_chunk(name)}, name
            elif name not in PASSING:
                assert content == self.before[name], name
        assert now.keys() >= self.before.keys() - PASSING

    def origin_chunk(self, name: str) -> bytes | None:
        """Return what the origin has in this file."""
        path = self.origin.directory / name
        return read_file(path) if path.exists() else None

    def honest(self) -> None:
        """See that an honest push brings all that is missing."""
        assert self.append(self.pushing) is None
        same(self.origin, self.copy)


def files(folder: Path) -> dict[str, bytes | str]:
    """Return the content of all files, and where links lead."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def framed(message: Message) -> bytes:
    """Return a message as it goes over the wire."""
    return prefixed(msgspec.msgpack.encode(message))


def prefixed(content: bytes) -> bytes:
    """Return content with its length before it."""
    return struct.pack("<I", len(content)) + content


def _recording(send: Callable[[Wire, Message], None], said: list[Message]) -> Callable[[Wire, Message], None]:
    def recorded(wire: Wire, message: Message) -> None:
        said.append(message)
        send(wire, message)

    return recorded


@pytest.fixture(scope="session")
def _play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path_factory.mktemp("play")) as folder:
        yield Play(Path(folder))


@pytest.fixture
def play(_play: Play) -> Play:
    """The play, at its beginning."""
    _play.reset()
    return _play


__all__ = ["Play", "_play", "framed", "play", "prefixed"]
