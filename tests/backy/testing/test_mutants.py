"""The contracts refuse plugins that are wrong in one thing only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backy.api import PAGE_SIZE, ChunkDamageError, Coverage, Extent, Report, Snapshot, chunk_count
from backy.comparing import compare_all
from backy.testing.laboratory import BrokenPromiseError, Laboratory
from backy.testing.memory import MemoryImage
from backy.testing.pytest_plugin import CRASHES
from backy.testing.source_contract import SourceContract, SourceUnderTest
from backy.testing.storage_contract import StorageContract, StorageUnderTest, _made, _Stored
from backy.testing.trials import power_losses, prepare
from backy.testing.verifier_contract import CONTENT, LATELY, LONG_AGO, VerifierContract
from backy_storages_chunked import storage, writer
from backy_storages_chunked.files import ChunkFile
from backy_storages_chunked.writer import ChunkWriter


class Changed:
    """A module in which some functions are others."""

    def __init__(self, module, **functions) -> None:
        self._module = module
        vars(self).update(functions)

    def __getattr__(self, name: str):
        return getattr(self._module, name)


def without_fsync_of_files(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "os", Changed(os, fsync=lambda descriptor: None))


def without_fsync_of_folders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "sync_folder", lambda folder: None)


def without_sync_of_the_file_system(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "sync_file_system", lambda descriptor: None)


def rename_before_fsync(patch: pytest.MonkeyPatch) -> None:
    # All is durable before `commit` ends, and yet a file that others need was in part when it took over.
    renamed: list[str] = []
    commit = ChunkWriter.commit

    def rename(source: str, target: str) -> None:
        Path(source).rename(target)
        renamed.append(target)

    def late(self: ChunkWriter):
        for path in renamed:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        renamed.clear()
        return commit(self)

    patch.setattr(writer, "os", Changed(os, fsync=lambda descriptor: None, rename=rename))
    patch.setattr(ChunkWriter, "commit", late)
    # most storages write anew what nobody relies on, and so may replace a file that is the base of others
    patch.setattr(ChunkWriter, "_is_left", lambda *_: False)


class Everything:
    def __contains__(self, chunk_id: object) -> bool:
        return True


def relying_on_all_that_is_stored(patch: pytest.MonkeyPatch) -> None:
    make = ChunkWriter.__init__
    patch.setattr(
        ChunkWriter,
        "__init__",
        lambda self, files, codec, way, _, notes: make(self, files, codec, way, Everything(), notes),
    )


def relying_on_what_reads_well_but_was_never_synced(patch: pytest.MonkeyPatch) -> None:
    relying_on_all_that_is_stored(patch)

    def reads_well(self: ChunkWriter, file: ChunkFile) -> bool:
        with suppress(ChunkDamageError):
            self._reader.read(0, file.chunk_id)
            return True
        return False

    patch.setattr(ChunkWriter, "_is_stored", reads_well)


def purge_that_forgets_bases(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(storage, "_ingredients", lambda files, *live: set())


@pytest.fixture
def laboratory(tmp_path: Path, clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Laboratory]:
    """Make what the contract tries crashes on, with an option `durability`."""
    for module in ("testing.laboratory", "backup.backup", "backup.transfer"):
        monkeypatch.setattr(f"backy.{module}.boot_id", lambda: "one boot")

    def make(durability: str) -> Laboratory:
        made = Laboratory(tmp_path / "laboratory", clock, {"type": "chunked", "durability": durability})
        prepare(made)
        return made

    return make


@pytest.mark.parametrize(
    ("mutant", "durability", "action"),
    [
        (without_fsync_of_files, "file", "backup"),
        (without_fsync_of_folders, "file", "backup"),
        (without_sync_of_the_file_system, "filesystem", "backup"),
        (rename_before_fsync, "file", "backup"),
        (relying_on_all_that_is_stored, "file", "backup after a failed one"),
        (relying_on_what_reads_well_but_was_never_synced, "file", "backup after a failed one"),
        (purge_that_forgets_bases, "file", "forget and purge"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_crashes_show_it(laboratory, monkeypatch, mutant: Callable, durability: str, action: str) -> None:
    prepared = laboratory(durability)
    mutant(monkeypatch)
    with pytest.raises(BrokenPromiseError):
        power_losses(prepared, action, CRASHES)


# the contract of storages does the same with the other durability, which is the default
@pytest.mark.parametrize("durability", ["file", pytest.param("filesystem", marks=pytest.mark.soak)])
@pytest.mark.parametrize("action", ["backup", "backup after a failed one", "forget and purge"])
def test_crashes_show_nothing_without_a_mutant(laboratory, rounds, durability: str, action: str) -> None:
    assert power_losses(laboratory(durability), action, rounds(1, CRASHES))


@pytest.fixture
def stored(tmp_path: Path) -> _Stored:
    (tmp_path / "vm").mkdir()
    storage = _made(StorageUnderTest({"type": "chunked"}, tmp_path))
    storage.initialize("the-store")
    return _Stored(storage, tmp_path / "vm")


def test_a_dedup_that_looks_at_nothing(stored: _Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    relying_on_all_that_is_stored(monkeypatch)
    with pytest.raises((AssertionError, ChunkDamageError)):
        StorageContract().test_what_no_complete_revision_refers_to_is_not_relied_on(stored, lambda data: data[:1000])


def test_a_purge_that_forgets_a_base(stored: _Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    purge_that_forgets_bases(monkeypatch)
    with pytest.raises((AssertionError, ChunkDamageError)):
        StorageContract().test_removing_and_purging_keeps_what_is_live(stored)


@pytest.mark.parametrize("claimed", [0, PAGE_SIZE - 1, PAGE_SIZE])
def test_a_write_that_claims_too_few_bytes(stored: _Stored, monkeypatch: pytest.MonkeyPatch, claimed: int) -> None:
    write = ChunkWriter.write
    monkeypatch.setattr(ChunkWriter, "write", lambda *arguments: min(write(*arguments), claimed))
    with pytest.raises(AssertionError):
        StorageContract().test_changed_bytes_are_told(stored)


class Hiding:
    """A source in memory that tells all changes but the one with this number."""

    verifier = "full"

    def __init__(self, number: int) -> None:
        self.content = CONTENT
        self.number = number
        self.changes: list[Extent] = []

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        hidden = self.changes[: self.number] + self.changes[self.number + 1 :]
        yield MemoryImage(self.content, tuple(sorted(hidden, key=lambda one: one.offset)) if parent else None)
        self.changes = []

    def write(self, offset: int, data: bytes) -> None:
        self.content = self.content[:offset] + data + self.content[offset + len(data) :]
        self.changes.append(Extent(offset, len(data), data=True))


@pytest.mark.parametrize("number", range(4))
def test_a_source_that_hides_one_change(number: int) -> None:
    disk = Hiding(number)
    subject = SourceUnderTest("memory", "", lambda: disk.content, write=disk.write)
    with pytest.raises(AssertionError, match="changes since"):
        SourceContract().test_what_changed_is_told(subject, disk)


def test_a_source_that_hides_none() -> None:
    disk = Hiding(1000)
    subject = SourceUnderTest("memory", "", lambda: disk.content, write=disk.write)
    SourceContract().test_what_changed_is_told(subject, disk)


class Swallowing:
    """A verifier that takes a chunk that can not be read for a sound one."""

    def verify(self, snapshot, image, mismatch, progress, coverage) -> Report:
        with suppress(ChunkDamageError):
            image.pread(0, snapshot.size)
        return Report("swallowing", ())


def test_a_verifier_that_swallows_damage() -> None:
    with pytest.raises(AssertionError):
        VerifierContract().test_damage_is_told_apart_from_a_difference(Swallowing(), CONTENT)


class Misreporting:
    """A verifier that compares all, and reports something else."""

    def __init__(self, reported: Callable[[range, Coverage], Collection[int]]) -> None:
        self._reported = reported

    def verify(self, snapshot, image, mismatch, progress, coverage) -> Report:
        everything = range(chunk_count(snapshot.size))
        compare_all(snapshot, image, everything, mismatch, progress)
        return Report("misreporting", self._reported(everything, coverage))


@pytest.mark.parametrize(
    "reported",
    [
        lambda everything, _: everything[1:],
        lambda everything, _: [*everything, 0],
        lambda everything, _: range(len(everything) + 1),
        lambda everything, coverage: [*coverage.due(5), *everything],
        lambda everything, coverage: everything[coverage.compared[-1] :],
    ],
    ids=["too few", "one twice", "one that is not there", "those that are due twice", "what was compared before"],
)
def test_a_verifier_that_reports_other_chunks_than_it_compares(reported: Callable) -> None:
    with pytest.raises(AssertionError):
        examine(Misreporting(reported))


def examine(verifier: Misreporting) -> None:
    contract = VerifierContract()
    contract.test_every_chunk_that_differs_and_is_looked_at_is_a_mismatch(verifier, CONTENT)
    for coverage in (LATELY, LONG_AGO):
        contract.test_what_is_reported_was_compared_whatever_was_compared_before(verifier, coverage)


HANGING = """
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backy.testing.verifier_contract import VerifierContract


class TestHanging(VerifierContract):
    time_limit = 1

    @pytest.fixture
    def config(self):
        return {"type": "none"}

    @pytest.fixture
    def verifier(self):
        return self

    def verify(self, snapshot, image, mismatch, progress, coverage):
        # as a library does that waits for a thread which waits for it
        with ThreadPoolExecutor(1) as pool:
            pool.submit(threading.Event().wait).result()
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_plugin_that_hangs_is_no_endless_run(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    words = ["-q", "-p", "no:cacheprovider", "-n", workers, "-k", "equal_images or key_that_nobody", "test_hanging.py"]
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    # xdist goes on with the next test, and has no output of a worker that ended
    told = "1 failed, 1 passed" if workers == "1" else "in verify"
    assert told in done.stdout + done.stderr


def test_without_the_plugin_that_ends_tests_no_contract_is_tried(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-p", "no:timeout", "-p", "no:cacheprovider", "test_hanging.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pip install 'backy[testing]'" in done.stdout + done.stderr
