"""Whatever a plugin raises or returns against the contract is told as its fault, in one line with its distribution."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, DisposableStorage, KeepingSource
from backy.backup.backup import Backup
from backy.errors import PluginError, SourceError, VerificationError
from backy.plugins.discovery import Kind
from backy.plugins.events import Events
from backy.plugins.loading import call
from backy.repository.config import JobConfig, SourceSection, StorageSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.revision import FORMAT, Revision

PLUGIN = """
import os
from contextlib import contextmanager
from backy.api import *
from backy.errors import VerificationError
from backy.hookspecs import hookimpl
import backy_storages_chunked as chunked
from backy.verifiers.verifiers import FullVerifier

class Snapshot:
    size = 2 * CHUNK_SIZE
    def extents(self): return [Extent(0, self.size, True)]
    def changes(self): return None
    def pread(self, offset, length): return b"x" * length

class Source:
    verifier = "full"
    @contextmanager
    def snapshot(self, revision_id, parent): yield Snapshot()

class Proxy:
    def __init__(self, wrapped): self.wrapped = wrapped
    def __getattr__(self, name): return getattr(self.wrapped, name)

class Writer(Proxy): pass
class Reader(Proxy): pass
class Storage(Proxy):
    @contextmanager
    def create(self, *arguments):
        with self.wrapped.create(*arguments) as writer: yield Writer(writer)
    @contextmanager
    def open(self, *arguments):
        with self.wrapped.open(*arguments) as reader: yield Reader(reader)

class Verifier(FullVerifier): pass

def _raise(error): raise error

class sources:
    @hookimpl
    def backy_source_config(argument): return {}
    @hookimpl
    def backy_source(config): return Source()
class storages:
    @hookimpl
    def backy_storage(job): return Storage(chunked.backy_storage({"type": "chunked"}, job))
class verifiers:
    @hookimpl
    def backy_verifier(): return Verifier()
"""
GROUPS = {"backy.sources": ["odd:sources"], "backy.storages": ["odd:storages"], "backy.verifiers": ["odd:verifiers"]}
VERIFY = "verify(Unhinted, StoredImage, method, function, Coverage)"
SECTION = SourceSection({"type": "odd"})
SHORT = StorageSection.named("odd")


@pytest.fixture
def backed_up(distribution: Callable[..., str], tmp_path: Path) -> Callable[[str], Revision]:
    """Back up with plugins that are sound but for the `fault`."""

    def run(fault: str) -> Revision:
        distribution("acme", GROUPS, PLUGIN + fault)
        config = JobConfig(format=FORMAT, source=SECTION, storage=SHORT, verifier=VerifierSections.from_plain("odd"))
        return Backup(
            Repository.initialize(tmp_path / "odd", config), ("daily",), events=Events(), revision_id="revision"
        ).run()

    return run


def test_sound_plugins_work_behind_their_guards(backed_up: Callable) -> None:
    assert str(backed_up("").verification) == "verified"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("Source.verifier = 5", "source: verifier returned 5 instead of str"),
        ("del Source.verifier", "source: hook backy_source returned Source, which has no 'verifier'"),
        ("Source = lambda: 42", "source: hook backy_source returned 42, which has no 'snapshot'"),
        (
            "Source.snapshot = lambda *_: 42",
            "source: snapshot('revision', None) returned 42 instead of AbstractContext",
        ),
        (
            "Source.snapshot = lambda *_: 1 / 0",
            "source: snapshot('revision', None) failed with ZeroDivisionError",
        ),
        (
            "Source.snapshot = contextmanager(lambda *_: iter([None]))",
            "source: snapshot('revision', None) returned None, which has no 'changes'",
        ),
        ("Snapshot.size = '8M'", "source: size returned str instead of a number of 0 or more"),
        ("Snapshot.size = -1", "source: size returned -1 instead of a number of 0 or more"),
        ("Snapshot.size = True", "source: size returned True instead of a number of 0 or more"),
        ("Snapshot.extents = lambda _: 5", "source: extents() returned 5 instead of Iterable"),
        (
            "Snapshot.extents = lambda _: [(0, 1, True)]",
            "source: extents() returned tuple instead of an Extent of whole numbers",
        ),
        ("Snapshot.extents = lambda _: (1 / 0 for _ in 'x')", "source: extents() failed with ZeroDivisionError"),
        (
            "Snapshot.extents = lambda _: [Extent('0', 1, True)]",
            "source: extents() failed with TypeError: can only conc",
        ),
        ("Snapshot.pread = lambda *_: 'x'", "source: pread(0, 4194304) returned str instead of bytes"),
        ("Snapshot.pread = lambda *_: None", "source: pread(0, 4194304) returned None instead of bytes"),
        ("Snapshot.pread = lambda *_: _raise(SystemExit(0))", "source: pread(0, 4194304) failed with SystemExit: 0"),
        ("Snapshot.pread = lambda _: b''", "source: pread(0, 4194304) failed with TypeError: "),
        (
            "Snapshot.consistency = 'yes'",
            "source: consistency returned str instead of one of guest, crash, none, unknown",
        ),
        (
            "Snapshot.consistency, Snapshot.unfrozen = 'crash', 'no'",
            "source: unfrozen returned str instead of bool",
        ),
        ("Snapshot.pread = lambda *_: b'x'", "source: pread(0, 4194304) returned bytes, 1 of 4194304; did"),
        ("Storage.identity = property(lambda _: {}['x'])", "storage: identity failed with KeyError: 'x'"),
        (
            "Storage.create = lambda *_: 42",
            "storage: create('revision', None, 8388608, LiveChunks) returned 42 ",
        ),
        ("Storage.open = lambda *_: None", "storage: open('revision') returned None instead of AbstractContextManager"),
        ("Writer.write = lambda *_: None", "storage: write(0, bytes, bytes, None) returned None instead of a number"),
        ("Writer.write = lambda *_: 2**30", "storage: write(0, bytes, bytes, None) returned 1073741824 instead of at"),
        ("Writer.commit = lambda _: 17", "storage: commit() returned 17 instead of Stored"),
        (
            "Writer.commit = lambda _: Stored('17')",
            "storage: commit().bytes returned str instead of a number of 0 or more",
        ),
        ("Reader.read = lambda *_: 'x'", "storage: read(0, bytes) returned str instead of bytes"),
        ("Reader.read = lambda *_: {}['x']", "storage: read(0, bytes) failed with KeyError: 'x'"),
        ("Verifier.verify = lambda *_: None", f"verifier: {VERIFY} returned None instead of Report"),
        (
            "Verifier.verify = lambda *_: Report('odd', [0, 2])",
            f"verifier: {VERIFY} returned 2 chunks as compared: not each once, or not of the 2 that there are",
        ),
        (
            "Verifier.verify = lambda *_: Report('odd', [1, 1])",
            f"verifier: {VERIFY} returned 2 chunks as compared: not",
        ),
        ("Verifier.verify = lambda *_: Report('odd', 'x')", f"verifier: {VERIFY} returned 1 chunks as compared: not"),
        (
            "Verifier.verify = lambda *_: Report('odd', 2)",
            f"verifier: {VERIFY}.compared returned 2 instead of",
        ),
        (
            "Verifier.verify = lambda *_: Report('odd', range(2), remarks='x')",
            f"verifier: {VERIFY}.remarks returned str",
        ),
        ("Verifier.verify = lambda *_: {}['x']", f"verifier: {VERIFY} failed with KeyError: 'x'"),
        (
            "Verifier.verify = lambda self, s, i, found, p, c: found('all')",
            f"verifier: {VERIFY} reported str instead of a Mismatch",
        ),
    ],
)
def test_a_fault_names_plugin_distribution_and_call(fault: str, cause: str, backed_up: Callable) -> None:
    kind, _, text = cause.partition(": ")

    with pytest.raises(PluginError, match=rf"^{kind} 'odd' of acme 1\.0 is broken: {re.escape(text)}"):
        backed_up(fault)


def test_an_error_of_the_system_names_plugin_and_file(backed_up: Callable) -> None:
    with pytest.raises(OSError, match=r"^source 'odd' of acme 1\.0 failed in pread\(0, 4194304\): /x: No such file"):
        backed_up("Snapshot.pread = lambda *_: open('/x')")


def test_an_error_for_users_stays_as_it_is(backed_up: Callable) -> None:
    with pytest.raises(SourceError, match=r"^the tape is torn$"):
        backed_up("Snapshot.pread = lambda *_: _raise(SourceError('the tape is torn'))")


@pytest.mark.parametrize("end", ["return True", "raise KeyError('x')"])
def test_a_context_can_neither_swallow_nor_replace_the_error_of_a_backup(
    end: str, backed_up: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(VerificationError, match="1 chunk that is not what the source has"):
        backed_up(f"""
class Swallowing:
    def __enter__(self): return Snapshot()
    def __exit__(self, *error):
        {end}
Source.snapshot = lambda *_: Swallowing()
Verifier.verify = lambda self, s, i, found, p, c: (found(Mismatch(1, "odd", b"", b"")), Report("odd", [1]))[1]
""")
    left = "source 'odd' of acme 1.0 is broken: leaving snapshot('revision', None) failed with KeyError: 'x'"
    assert (left in caplog.text) == (end != "return True")


def test_what_the_core_raises_is_not_blamed_on_the_verifier_that_it_passes(
    backed_up: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backy.backup.findings.Findings.add", full)
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        backed_up('Verifier.verify = lambda self, s, i, found, p, c: found(Mismatch(1, "odd", b"", b""))')


def test_optional_members_are_seen_and_others_passed_on(distribution: Callable[..., str], tmp_path: Path) -> None:
    more = "Source.retain = lambda self, ids: None\nSource.later = lambda self: 'new'"
    distribution("acme", GROUPS, PLUGIN + more)
    source = call(Kind.SOURCE, "odd", "backy_source", config={}, job=None)
    storage = Repository(tmp_path, JobConfig(format=FORMAT, source=SECTION, storage=SHORT)).storage()

    assert isinstance(source, KeepingSource)
    assert source.later() == "new"
    assert isinstance(storage, DisposableStorage)


def test_an_attribute_is_checked_when_it_is_looked_at(distribution: Callable[..., str], tmp_path: Path) -> None:
    distribution("acme", GROUPS, PLUGIN + "Storage.raw = None")
    storage = Repository(tmp_path, JobConfig(format=FORMAT, source=SECTION, storage=SHORT)).storage()

    with pytest.raises(PluginError, match="raw returned None instead of bool"):
        _ = storage.raw


def test_a_member_that_is_not_there_is_not_made_up(backed_up: Callable, distribution: Callable[..., str]) -> None:
    distribution("acme", GROUPS, PLUGIN)
    assert not isinstance(call(Kind.SOURCE, "odd", "backy_source", config={}, job=None), KeepingSource)


def test_the_fault_is_the_line_that_observers_get(
    distribution: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Events, "tell", lambda _self, _hook, job, error: told.append(error))
    distribution("acme", GROUPS, PLUGIN + "Snapshot.pread = lambda *_: 'x'")
    repository = Repository.initialize(tmp_path / "odd", JobConfig(format=FORMAT, source=SECTION))

    with pytest.raises(PluginError) as failed:
        Backup(repository, ("daily",), events=Events()).run()

    assert told == [str(failed.value)]
    assert CHUNK_SIZE == 4194304  # as the texts have it
