"""Storages that keep data outside of the repository are tried as well: in a mapping, and in a folder beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import ChunkDamageError, Held, Purged, Stored
from backy.repository.repository import Repository
from backy.testing.crashes import crashes
from backy.testing.laboratory import BrokenPromiseError, Laboratory
from backy.testing.memory import MemoryBlobs
from backy.testing.recording import IncompleteRecordingError, record
from backy.testing.storage_contract import StorageContract, _damaged, _Stored, _torn
from backy.testing.trials import ACTIONS, failing_calls, power_losses, prepare


class Bucket:
    """A storage that keeps chunks in a mapping, as others do in an object store."""

    raw = False
    shares_chunks = True
    identity = "bucket"

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.blobs = blobs

    def initialize(self, *arguments: object) -> None:
        """Make nothing."""

    @contextmanager
    def create(self, revision_id, parent, size, reliable) -> Iterator[Bucket]:
        self.reliable = reliable
        yield self

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        if not (chunk_id in self.reliable and chunk_id.hex() in self.blobs):
            self.blobs[chunk_id.hex()] = data
        return len(data)

    def zero(self, index: int) -> None:
        """Store nothing."""

    def commit(self) -> Stored:
        return Stored(0, durable=True)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[Bucket]:
        yield self

    def read(self, index: int, chunk_id: bytes) -> bytes:
        self.probe(index, chunk_id)
        return self.blobs[chunk_id.hex()]

    def probe(self, index: int, chunk_id: bytes) -> None:
        if chunk_id.hex() not in self.blobs:
            raise ChunkDamageError(chunk_id, "it is missing")

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        self.blobs[chunk_id.hex()] = data

    def remove(self, revision_id: str) -> None:
        """Leave everything to `purge`."""

    def held(self, live) -> Held:
        return Held(0, 0)

    def purge(self, live) -> Purged:
        dead = [name for name in self.blobs if bytes.fromhex(name) not in live]
        for name in dead:
            del self.blobs[name]
        return Purged(len(dead), 0)


class Memory(MemoryBlobs):
    """What is kept elsewhere, and the buffer of a storage, which a power loss empties."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer: dict[str, bytes] = {}

    def clear(self) -> None:
        super().clear()
        self.buffer.clear()


class Lazy(Bucket):
    """A bucket that sends what it has in its buffer when the next revision begins."""

    def create(self, revision_id, parent, size, reliable):
        self.blobs.update(self.blobs.buffer)
        return super().create(revision_id, parent, size, reliable)

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        self.blobs.buffer[chunk_id.hex()] = data
        return len(data)

    def probe(self, index: int, chunk_id: bytes) -> None:
        if chunk_id.hex() not in self.blobs.buffer:
            super().probe(index, chunk_id)

    def read(self, index: int, chunk_id: bytes) -> bytes:
        self.probe(index, chunk_id)
        return {**self.blobs, **self.blobs.buffer}[chunk_id.hex()]


@pytest.fixture
def laboratory(tmp_path: Path, clock, monkeypatch: pytest.MonkeyPatch):
    def make(kind: type[Bucket]) -> Laboratory:
        blobs = Memory()
        monkeypatch.setattr(Repository, "_make_storage", lambda _self, _section: kind(blobs))
        number = len(list(tmp_path.iterdir()))
        made = Laboratory(tmp_path / f"laboratory {number}", clock, {"type": "bucket"}, blobs=blobs)
        prepare(made)
        return made

    return make


@pytest.mark.parametrize("action", ACTIONS)
def test_a_sound_bucket_passes(laboratory, action: str) -> None:
    assert power_losses(laboratory(Bucket), action, 12)


@pytest.mark.parametrize("action", ACTIONS)
def test_any_change_of_a_bucket_may_fail(laboratory, action: str) -> None:
    made = laboratory(Bucket)
    before = len(made.blobs)
    calls = made.record(lambda: ACTIONS[action](made)).calls
    assert calls.count("put") >= abs(len(made.blobs) - before)
    assert failing_calls(laboratory(Bucket), action, 6, lasting=False)


def test_what_was_not_sent_before_the_record_is_lost(laboratory) -> None:
    with pytest.raises(BrokenPromiseError):
        power_losses(laboratory(Lazy), "backup", 12)


@pytest.mark.parametrize("spoilt", [_damaged, _torn])
def test_blobs_are_spoilt_by_the_contract(tmp_path: Path, spoilt) -> None:
    blobs: dict[str, bytes] = {"marker": b"small"}
    contract = StorageContract()

    def stored() -> _Stored:
        return _Stored(Bucket(blobs), tmp_path, blobs)

    contract.test_damage_is_told_and_repaired(stored(), spoilt)
    contract.test_what_no_complete_revision_refers_to_is_not_relied_on(stored(), spoilt)
    contract.test_a_missing_chunk_is_damage(stored())
    assert blobs == {"marker": b"small"}


def test_a_blob_is_there_as_before_or_after_or_in_part(tmp_path: Path) -> None:
    blobs = MemoryBlobs({"same": b"1", "gone": b"2", "old": b"3333"})
    earlier = dict(blobs)
    with record(tmp_path, blobs=blobs) as recording:
        blobs.update({"old": b"4444", "new": b"5555"})
        del blobs["gone"]
        (tmp_path / "file").touch()
        blobs["last"] = b"6"
    (end,) = [number for number, one in enumerate(recording.operations) if getattr(one, "entry", None) == (0, "file")]
    seen: dict[str, set[bytes | None]] = {}
    for crash in crashes(recording.operations, 20, seed=1):
        found = crash.tree(recording).blobs
        assert found == earlier or crash.after
        assert crash.after < end or found == {"same": b"1", "old": b"4444", "new": b"5555"} or crash.after > end + 1
        for name in {*earlier, *blobs}:
            seen.setdefault(name, set()).add(found.get(name))
    assert found == blobs
    assert seen["same"] == {b"1"}
    assert seen["gone"] == {b"2", None}
    assert seen["old"] >= {b"3333", b"4444", b"44", b""}
    assert seen["new"] >= {None, b"5555", b"55", b""}


def test_a_folder_around_the_repository_is_recorded_where_that_is_asked_for(tmp_path: Path, clock) -> None:
    (tmp_path / "all").mkdir()
    laboratory = Laboratory(tmp_path / "all/vm", clock, {"type": "chunked"}, folder=tmp_path / "all")
    laboratory.initialize()
    (tmp_path / "all/pool").write_bytes(b"chunk")

    def share() -> None:
        os.link(tmp_path / "all/pool", tmp_path / "all/vm/chunk")

    recording = laboratory.record(share)
    laboratory.put(recording.before)
    assert not (tmp_path / "all/vm/chunk").exists()
    laboratory.folder = None
    with pytest.raises(IncompleteRecordingError, match="not recorded"):
        laboratory.record(share)
