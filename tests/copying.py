"""Copies between repositories in one process: `serve` runs in a thread, and what is said goes through real pipes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from secrets import token_hex

import pytest

from backy.answers.replay import findings
from backy.api import CHUNK_SIZE
from backy.copies.copies import pull, send, serve
from backy.copies.ends import End
from backy.exchange.offer import ALL, Order
from backy.exchange.wire import Done, Hello, Wire
from backy.repository.journal import facts_of
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.limits import Limit
from backy.testing.clock import Clock
from backy.testing.laboratory import Laboratory, patterned

PASSING = {".backup", ".purge", ".records", "journal", ".seq", ".reserve"}
"""What a command may write that copies nothing: locks, the journal, and numbers that were used."""


@dataclass(eq=False)
class Tally(Limit):
    """Counts what goes over a wire, and keeps nobody waiting."""

    rate: float = 1.0
    bytes: int = 0

    def take(self, count: int) -> None:
        """Count."""
        self.bytes += count


@dataclass
class Talk:
    """What was said, and how those ended that served."""

    wires: list[Tally] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    sessions: int = 1

    @property
    def bytes(self) -> int:
        """How many bytes went over all wires since this was asked last."""
        found = sum(wire.bytes for wire in self.wires)
        self.wires.clear()
        return found

    @contextmanager
    def connected(self, end: End, order: Order = ALL) -> Iterator[tuple[Wire, Callable[[], list[Wire]]]]:
        """Serve in threads; as `ends.connected`."""
        wires, threads = list[Wire](), []
        names = [token_hex(16) for _ in range(1, self.sessions)]

        def session(name: str, others: Sequence[str] = ()) -> Wire:
            asked, answered = os.pipe(), os.pipe()
            self.wires.append(Tally())
            limits = [*order.limits, self.wires[-1]]
            wires.append(Wire(os.fdopen(answered[0], "rb"), os.fdopen(asked[1], "wb"), limits))
            other = Wire(os.fdopen(asked[0], "rb"), os.fdopen(answered[1], "wb"))
            threads.append(threading.Thread(target=self._serve, args=(end, other)))
            threads[-1].start()
            appending = end.mode == "--append"
            wires[-1].send(Hello(end.name, appending, order.dry_run, session=name, others=[*others]))
            return wires[-1]

        try:
            yield session("", names), lambda: [session(name) for name in names]
        finally:
            for wire in wires:
                close(wire)
            for thread in threads:
                thread.join()

    def given(self, wire: Wire) -> Callable[..., AbstractContextManager[tuple[Wire, Callable[[], list[Wire]]]]]:
        """Return what stands for `ends.connected` if the other side is there already."""

        @contextmanager
        def connected(end: End, order: Order = ALL) -> Iterator[tuple[Wire, Callable[[], list[Wire]]]]:
            yield wire, list

        return connected

    def push(self, directory: Path, base: Path, order: Order = ALL, name: str = "vm") -> Done:
        """Push to a directory below which repositories are, as by ssh."""
        end = End(f"ssh://there/{name}", ["serve", "--append", str(base)], name, "--append")
        with self.connected(end, order) as (wire, more):
            return send(Repository.open(directory), [wire, *more()], end.place, order)

    def _serve(self, end: End, wire: Wire) -> None:
        try:
            serve(Path(end.command[-1]), wire, appending=end.command[-2] == "--append")
        except Exception as error:  # noqa: BLE001  # the test looks at them
            self.errors.append(error)
        finally:
            close(wire)


def close(wire: Wire) -> None:
    """Close both pipes, of which the other side may have closed its ends."""
    for stream in (wire.writing, wire.reading):
        try:
            stream.close()
        except OSError:
            stream.raw.close()


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Let `pull` and `push` have their other side in threads of this process."""
    made = Talk()
    monkeypatch.setattr("backy.copies.copies.connected", made.connected)
    return made


@pytest.fixture(scope="session")
def _first(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """What `origin` and `copy` begin with, made once."""
    folder = tmp_path_factory.mktemp("copies")
    made = make(Laboratory(folder / "origin/vm", Clock(), {"type": "chunked"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backy.copies.copies.connected", Talk().connected)
        pull(folder / "copy", str(made.directory))
    return made


@pytest.fixture
def origin(_first: Laboratory, tmp_path: Path, clock: Callable[[], datetime]) -> Laboratory:
    """Three revisions in which a page, a chunk and the size change."""
    made = replace(_first, directory=tmp_path / "origin/vm", clock=clock)
    made.expected, made.promises = dict(_first.expected), list(_first.promises)
    shutil.copytree(_first.directory, made.directory, symlinks=True)
    return made


def make(made: Laboratory) -> Laboratory:
    """Make three revisions."""
    made.directory.parent.mkdir(exist_ok=True)
    made.content = patterned(0) + bytes(CHUNK_SIZE) + patterned(100) + bytes(range(250)) * 20
    made.initialize()
    made.backup()
    made.content = patterned(0, 7) + made.content[CHUNK_SIZE:] + b"more"
    made.backup()
    made.content = made.content[:CHUNK_SIZE] + patterned(200) + made.content[2 * CHUNK_SIZE : 3 * CHUNK_SIZE + 90]
    made.backup()
    return made


@pytest.fixture
def copy(_first: Laboratory, tmp_path: Path) -> Path:
    """A repository that has pulled everything."""
    shutil.copytree(_first.directory.parents[1] / "copy", tmp_path / "copies/vm", symlinks=True)
    return tmp_path / "copies/vm"


def same(made: Laboratory, directory: Path, ids: set[str] | None = None) -> list[Revision]:
    """See that a copy has these revisions of the laboratory, or all of them, as it has them; return them."""
    other = Repository.open(directory)
    history = other.records.history(trash=True)
    assert {one.id for one in history} == ({one.id for one in made.open().records.history()} if ids is None else ids)
    for one in history:
        for name in (f"{one.id}.rev", f"{one.id}.map"):
            assert (directory / name).read_bytes() == (made.directory / name).read_bytes()
    made.read_back(other, {one.id for one in history})
    sound(directory)
    sound(made.directory)
    return history


def sound(directory: Path) -> None:
    """See that nothing contradicts the journal, and that nothing is left over."""
    repository = Repository.open(directory)
    assert not findings(repository.records.journal.read(), facts_of(directory))
    assert not [path for path in directory.rglob("*") if path.suffix in {".tmp", ".running"}]
    ids = {path.stem for path in directory.glob("*.rev") if not path.is_symlink()}
    assert {path.stem for path in directory.glob("*.map")} == ids
    assert {path.stem for path in directory.glob("*.state")} == ids


def acts(directory: Path) -> list[str]:
    """Return what was done in a repository, by its journal."""
    lines = [one.line for one in Repository.open(directory).records.journal.read()]
    return [line.act for line in lines if line.step == "done"]


__all__ = ["_first", "copy", "origin", "talk"]
