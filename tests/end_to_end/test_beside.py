"""A command that only looks raises no alarm, whatever another command does to the repository at any point of it."""

from __future__ import annotations

import builtins
import fcntl
import io
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from backy.answers.audit import audit
from backy.backup.backup import Backup
from backy.cli.commands import questions
from backy.config import Duration
from backy.conversion.convert import Conversion
from backy.errors import BackyError, RepositoryBusyError, RevisionNotFoundError
from backy.groups.forget import expire, forget
from backy.repository.config import JobConfig, ScheduledTag, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.repository.running import births
from backy.repository.sealed import FORMAT
from backy.retention.purge import purge
from backy.retention.tags import add_tags
from backy.scheduler.jobs.repositories import summarize
from backy.scrubbing.scrub import Scrub, verify_all
from tests.trash import content

NOW = datetime(2026, 1, 1, tzinfo=UTC)


OPENERS = ((builtins, "open"), (io, "open"), (os, "open"), (os, "listdir"), (os, "scandir"))


class Watch:
    """Does something when files of a directory were opened, or folders of it listed, for the n-th time."""

    # No audit hook: it would be called in all tests that follow, as it can not be removed.

    def __init__(self) -> None:
        self._directory = ""
        self._seen = 0
        self._at = 0
        self._then: Callable[[], object] = list

    def _hear(self, path: object) -> None:
        if self._directory and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._directory):
            self._seen += 1
            if self._seen == self._at:
                self._directory = ""
                self._then()

    def _heard(self, opener: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: object = ".", *arguments: object, **options: object) -> object:
            self._hear(path)
            return opener(path, *arguments, **options)

        return opened

    def count(self, directory: Path, work: Callable[[], object]) -> int:
        """Do some work and return how often it opened something."""
        self.interrupt(directory, 0, list, work)
        return self._seen

    def interrupt(self, directory: Path, at: int, then: Callable[[], object], work: Callable[[], object]) -> None:
        """Do some work, and something else before it opens something for the time `at`."""
        self._seen, self._at, self._then, self._directory = 0, at, then, str(directory)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for module, name in OPENERS:
                    patch.setattr(module, name, self._heard(getattr(module, name)))
                work()
        finally:
            self._directory = ""


WATCH = Watch()


def command(found: click.Command, **options: object) -> Callable[[Path], object]:
    """Return a function that does what a command does."""
    return lambda directory: click.Context(found, obj=directory).invoke(found, directory=directory, **options)


def scrub(*, deep: bool) -> Callable[[Path], object]:
    def run(directory: Path) -> None:
        found = Scrub(Repository.open(directory), deep, utc_now).run()
        assert (found.damaged, found.distrusted, found.problems) == ([], [], [])

    return run


def look(directory: Path) -> None:
    found = summarize(directory, NOW, utc_now())
    assert (found.unreadable, found.distrusted, found.quarantine_reports) == (0, 0, 0)


def back_up_and_purge(repository: Repository) -> None:
    Backup(repository, ("new",)).run()
    forget(repository, [repository.records.history()[0].id], "a test", force=True)
    purge(repository, everything=True)


def forget_and_purge(repository: Repository) -> None:
    forget(repository, ["1"], "a test", force=True)
    purge(repository, everything=True)


def convert(repository: Repository) -> None:
    Conversion(repository, "cow" if repository.config.storage.type == "chunked" else "chunked").run()


LOOKS: dict[str, Callable[[Path], object]] = {
    "status": command(questions.status, trash=False, wide=False),
    "why": command(questions.why, specification="last"),
    "scrub light": scrub(deep=False),
    "scrub deep": scrub(deep=True),
    "verify": lambda directory: verify_all(Repository.open(directory), "last", lambda verdict: None),
    "look of the scheduler": look,
}
CHANGES: dict[str, Callable[[Repository], object]] = {
    "convert": convert,
    "forget": forget_and_purge,
    "tags": lambda repository: add_tags(repository, "last", ["manual:x"]),
    "backup": back_up_and_purge,
}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: no power is lost here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr("backy.durable.c_call", lambda *_arguments: None)


def model(base: Path, storage: str, trash: Duration) -> Path:
    """Make a repository with a full revision, some that differ by a page, and one that is all new."""
    chance = random.Random(storage)
    image = base / "vm.img"
    content = bytearray(chance.randbytes(5 << 20))
    source = SourceSection({"type": "file", "filename": str(image)})
    config = JobConfig(format=FORMAT, source=source, storage=StorageSection.named(storage), trash=trash)
    repository = Repository.initialize(base / f"model-{storage}", config)
    for number in range(3):
        content[number << 12 : (number << 12) + 100] = bytes(100)
        image.write_bytes(content)
        Backup(repository, (f"tag{number}",), timestamp=NOW + timedelta(days=number)).run()
    image.write_bytes(chance.randbytes(5 << 20))
    Backup(repository, ("new",)).run()
    return repository.directory


@pytest.mark.usefixtures("hurried")
def test_nothing_is_alarming(
    mount: Callable[[str], Path], rounds: Callable[[int, int], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Each change happens as a whole before some file is opened by those who look; a soak tries each of these."""
    base = mount("btrfs")
    chance = random.Random(0)
    for storage in ("chunked", "cow"):
        made = model(base, storage, Duration())
        for name, change in product(LOOKS, CHANGES):
            points = WATCH.count(made, partial(LOOKS[name], made))
            changed, wanted = 0, rounds(1, points)
            for point in chance.sample(range(1, points + 1), points):
                found, happened = alarms(made, name, change, point, caplog)
                assert found == [], (storage, name, change, point)
                changed += happened
                if changed == wanted:
                    break
            assert changed, (storage, name, change)


def never_waiting(lock: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    """Return flock(2) that fails where it would wait: for those who look, who are in this very process."""
    return lambda file, how: lock(file, how | fcntl.LOCK_NB)


def alarms(made: Path, name: str, change: str, point: int, caplog: pytest.LogCaptureFixture) -> tuple[list[str], bool]:
    """Look at a copy of a repository that is changed meanwhile.

    Returns:
        What those who look log or raise, and whether it was changed: not where the change would have waited for them.
    """
    happened = []

    def happen() -> None:
        with suppress(RepositoryBusyError, BlockingIOError), pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", never_waiting(fcntl.flock))
            CHANGES[change](Repository.open(copy))
            happened.append(change)

    copy = Path(shutil.copytree(made, made.with_name("vm"), symlinks=True))
    caplog.clear()
    raised = []
    try:
        WATCH.interrupt(copy, point, happen, partial(LOOKS[name], copy))
    except (AssertionError, BackyError, OSError) as error:
        raised.append(f"{type(error).__name__}: {error}")
    shutil.rmtree(copy)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    told = (one.getMessage() for one in warnings if "waiting for the command" not in one.getMessage())
    return [*raised, *told], bool(happened)


def back_up(directory: Path) -> None:
    Backup(Repository.open(directory), ("beside",)).run()


def verify(directory: Path) -> None:
    """Verify a revision that may be forgotten meanwhile."""
    with suppress(RevisionNotFoundError):
        verify_all(Repository.open(directory), "last", lambda verdict: None)


WRITERS: dict[str, Callable[[Path], object]] = {
    "backup": back_up,
    "verify": verify,
    "scrub": scrub(deep=True),
    "expire": lambda directory: expire(Repository.open(directory), utc_now),
    "convert": lambda directory: convert(Repository.open(directory)),
    "purge": lambda directory: purge(Repository.open(directory), everything=True),
}
"""The commands that run for long, or change records."""


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("storage", ["chunked", "cow"])
def test_tags_are_changed_and_revisions_forgotten_at_any_moment(
    mount: Callable[[str], Path], rounds: Callable[[int, int], int], caplog: pytest.LogCaptureFixture, storage: str
) -> None:
    """Beside a backup, a verify or a scrub that is done; beside others it is done or busy. Nobody waits for ever."""
    base = mount("btrfs")
    chance = random.Random(1)
    made = model(base, storage, Duration(days=7) if storage == "cow" else Duration())
    repository = Repository.open(made)
    # all but the newest expires
    schedule = {"daily": ScheduledTag(Duration(days=1), 1)}
    repository.write_config(msgspec.structs.replace(repository.config, schedule=schedule))
    for name, writer in WRITERS.items():
        copied = Path(shutil.copytree(made, base / f"count-{name}", symlinks=True))
        points = WATCH.count(copied, partial(writer, copied))
        wanted = {"done", "refused"} if name == "backup" else set()
        outcomes: set[str] = set()
        for tried, point in enumerate(chance.sample(range(1, points + 1), points)):
            if tried >= rounds(2, points) and outcomes >= wanted:
                break
            outcomes |= change_beside(made, writer, point, caplog)
        assert outcomes >= wanted
        assert outcomes & {"done", "busy"}, name


def change_beside(
    made: Path, writer: Callable[[Path], object], point: int, caplog: pytest.LogCaptureFixture
) -> set[str]:
    """Change a tag and forget each revision at one moment of a command, and return what became of that."""
    outcomes: set[str] = set()
    copy = Path(shutil.copytree(made, made.with_name("vm"), symlinks=True))
    before = Repository.open(copy).records.history()

    def happen() -> None:
        repository = Repository.open(copy)
        # not where it would wait, as it holds a lock for which the others wait: that raises
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", never_waiting(fcntl.flock))
            try:
                tagged = add_tags(repository, before[-1].id, ["manual:x"])
            except RepositoryBusyError:
                outcomes.add("busy")
                return
            assert "manual:x" in tagged.tags
            outcomes.add("tagged")
            for revision in repository.records.history():
                # not what the backup has just made, though that could be done
                if revision.tags != ("beside",):
                    outcomes.add(forgotten(repository, revision.id))

    caplog.clear()
    WATCH.interrupt(copy, point, happen, partial(writer, copy))
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one for one in told if not one.endswith("the newest revision; is it set right?")] == []
    repository = Repository.open(copy)
    left = repository.records.history()
    # the parent stays while a backup needs it
    assert outcomes == {"busy"} or [one.tags for one in left] == [
        *([("manual:x", "new")] if "refused" in outcomes else []),
        *([("beside",)] if writer is back_up else []),
    ]
    assert audit(repository).findings == ()
    assert repository.records.linked() == (left[-1].id if left else None)
    scrub(deep=True)(copy)
    purge(repository)
    scrub(deep=True)(copy)
    if left:
        with repository.image(left[-1]) as image:
            assert image.pread(0, image.size) == (made.parent / "vm.img").read_bytes()
    shutil.rmtree(copy)
    return outcomes


def forgotten(repository: Repository, revision_id: str) -> str:
    """Forget a revision, unless the backup needs it; return which it was."""
    if all(revision_id != birth.parent for birth in births(repository.directory)):
        forget(repository, [revision_id], "test", force=True)
        return "done"
    with pytest.raises(RepositoryBusyError, match=f"the backup that runs needs {revision_id}"):
        forget(repository, [revision_id], "test", force=True)
    return "refused"


STOPPING = """
import os, signal, sys
from pathlib import Path
image, directory = sys.argv.pop(1), Path(sys.argv[2])
def stop(event, arguments):
    if event == "open" and arguments[0] == image and any(directory.glob(".*.running")):
        os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(stop)
from backy.cli.main import main
main()
"""
"""Runs a command, and stops where a backup opens its source, after it has chosen its parent."""


def test_an_operator_works_while_another_process_makes_a_backup(tmp_path: Path, backy: Callable) -> None:
    directory = model(tmp_path, "chunked", Duration(days=7))
    oldest, *_, parent = Repository.open(directory).records.history()
    command = [sys.executable, "-c", STOPPING, str(tmp_path / "vm.img"), "-b", str(directory), "backup", "beside"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as backup:
        try:
            os.waitid(os.P_PID, backup.pid, os.WSTOPPED | os.WNOWAIT)
            answers = {
                words: backy("-b", directory, *words.split())
                for words in (
                    *("tags add manual:x -r last", "why -r last", "status", f"forget -r {oldest.id}"),
                    *(f"forget -r {parent.id} --force --reason test", "purge", f"undelete {oldest.id}"),
                )
            }
        finally:
            backup.send_signal(signal.SIGCONT)
        told = backup.communicate(timeout=60)[1]
    assert (backup.returncode, "WARNING" in told) == (0, False), told
    assert [done.code for done in answers.values()] == [0, 0, 0, 0, 75, 75, 75]
    [refused] = [done.err for words, done in answers.items() if "--reason" in words]
    assert f"the backup that runs needs {parent.id}; forget it when that has ended" in refused
    repository = Repository.open(directory)
    assert [one.tags for one in repository.records.history()] == [
        *(("tag1",), ("tag2",), ("manual:x", "new"), ("beside",)),
    ]
    assert [one.id for one in content(repository)] == [oldest.id]
    assert audit(repository).findings == ()
