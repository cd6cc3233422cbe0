"""The contracts fail for plugins that break them, each by the test that is meant for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.outcomes import Failed

from backy.api import CHUNK_SIZE, Extent, Report, Snapshot, chunk_count
from backy.testing.memory import MemoryImage
from backy.testing.source_contract import SourceContract, SourceUnderTest
from backy.testing.storage_contract import StorageContract, StorageUnderTest, _made, _Stored
from backy.testing.verifier_contract import CONTENT as VERIFIED
from backy.testing.verifier_contract import VerifierContract

CONTENT = bytes(range(1, 129)) * (3 * CHUNK_SIZE // 128)


@dataclass
class Disk:
    """A source in memory that can be written to, whose snapshots a test spoils."""

    content: bytes = CONTENT
    snapshot_type: type[MemoryImage] = MemoryImage
    hint: tuple[Extent, ...] | None = None
    verifier: str = "full"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        yield self.snapshot_type(self.content, self.hint if parent else None)

    def write(self, offset: int, data: bytes) -> None:
        self.content = self.content[:offset] + data + self.content[offset + len(data) :]

    def resize(self, size: int) -> None:
        self.content = self.content[:size].ljust(size, b"\0")

    @property
    def subject(self) -> SourceUnderTest:
        return SourceUnderTest(
            "memory", "", lambda: self.content, write=self.write, resize=self.resize, remove=lambda: None, frozen=True
        )


class ShortReads(MemoryImage):
    def pread(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


class Gap(MemoryImage):
    def extents(self) -> Iterator[Extent]:
        yield Extent(0, CHUNK_SIZE, data=True)
        yield Extent(2 * CHUNK_SIZE, self.size - 2 * CHUNK_SIZE, data=True)


class FalseHole(MemoryImage):
    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, data=False)


class WrongSize(MemoryImage):
    @property
    def size(self) -> int:
        return len(self.content) + 1


SPOILT = [
    ("any_range_can_be_read", Disk(snapshot_type=type("Off", (MemoryImage,), {"pread": lambda *_: b""}))),
    ("a_range_beyond_the_end_is_an_error", Disk(snapshot_type=ShortReads)),
    ("extents_are_in_order_and_leave_nothing_out", Disk(snapshot_type=Gap)),
    ("size_and_content_are_those_of_the_source", Disk(snapshot_type=FalseHole)),
    ("size_and_content_are_those_of_the_source", Disk(snapshot_type=WrongSize)),
    ("what_changed_is_told", Disk(hint=())),
    ("what_changed_is_told", Disk(hint=(Extent(0, CHUNK_SIZE, data=True),))),
    ("what_changed_is_told", Disk(hint=(Extent(0, len(CONTENT), data=False),))),
    ("what_did_not_change_twice_is_told_as_well", Disk(hint=(Extent(0, 4096, data=True),))),
    ("a_revision_that_the_source_never_saw_is_no_base", Disk(hint=())),
    ("growing_and_shrinking_are_changes", Disk(hint=())),
    ("a_backup_that_failed_is_no_base", Disk(hint=())),
    ("a_source_that_is_gone_is_reported_in_one_line", Disk()),
]


@pytest.mark.parametrize(("test", "disk"), SPOILT, ids=[test for test, _ in SPOILT])
def test_a_source_that_breaks_the_contract_fails(test: str, disk: Disk) -> None:
    function = getattr(SourceContract(), f"test_{test}")
    arguments = {"subject": disk.subject, "source": disk}
    wanted = {name: arguments[name] for name in arguments if name in function.__func__.__code__.co_varnames}
    with pytest.raises((AssertionError, Failed)):
        function(**wanted)


def test_a_sound_source_passes() -> None:
    disk = Disk()
    for test in ("what_changed_is_told", "growing_and_shrinking_are_changes", "any_range_can_be_read"):
        getattr(SourceContract(), f"test_{test}")(disk.subject, disk)


class Forgetful:
    """A storage in memory that keeps what it likes."""

    def __init__(self, storage, **spoilt) -> None:
        self._storage = storage
        vars(self).update(spoilt)

    def __getattr__(self, name: str):
        return getattr(self._storage, name)


@pytest.fixture
def stored(tmp_path: Path) -> _Stored:
    (tmp_path / "vm").mkdir()
    storage = _made(StorageUnderTest({"type": "chunked"}, tmp_path))
    storage.initialize("the-store")
    return _Stored(storage, tmp_path / "vm")


@pytest.mark.parametrize(
    ("test", "spoiling"),
    [
        ("all_space_is_given_back", {"purge": lambda live: None}),
        ("removing_and_purging_keeps_what_is_live", {"purge": "everything"}),
        ("damage_is_told_and_repaired", {"repair": lambda *_: None}),
    ],
)
def test_a_storage_that_breaks_the_contract_fails(stored: _Stored, tmp_path: Path, test: str, spoiling: dict) -> None:
    purge = stored.storage.purge
    replaced = {"purge": lambda live: purge(set())} if "everything" in spoiling.values() else spoiling
    stored.storage = Forgetful(stored.storage, **replaced)
    function = getattr(StorageContract(), f"test_{test}")
    subject = StorageUnderTest({"type": "chunked"}, tmp_path)
    arguments = {"stored": stored, "subject": subject, "spoilt": lambda content: content[:1000]}
    wanted = {name: arguments[name] for name in arguments if name in function.__func__.__code__.co_varnames}
    with pytest.raises(Exception, match=r".") as failed:
        function(**wanted)
    assert not isinstance(failed.value, TypeError | AttributeError)


class Blind:
    """A verifier that looks at nothing and says it did."""

    def verify(self, snapshot, image, mismatch, progress, coverage) -> Report:
        return Report("blind", range(chunk_count(snapshot.size)))


@pytest.mark.parametrize(
    "test",
    ["every_chunk_that_differs_and_is_looked_at_is_a_mismatch", "a_source_that_fails_ends_the_verification"],
)
def test_a_verifier_that_breaks_the_contract_fails(test: str) -> None:
    function = getattr(VerifierContract(), f"test_{test}")
    arguments = [Blind(), VERIFIED] if "suits" in function.__func__.__code__.co_varnames else [Blind()]
    with pytest.raises(AssertionError):
        function(*arguments)
