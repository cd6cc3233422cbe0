"""What fails after a revision is complete is a warning: the same backup is not made again for it."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import Snapshot, SourceBusyError
from backy.backup.backup import Backup
from backy.integrity.damage import Judge
from backy.integrity.seen import Seen
from backy.plugins.events import Events
from backy.repository.repository import Repository


class Clumsy:
    """A source that can not let go of its snapshot."""

    verifier = "full"

    def __init__(self, source, error: Exception) -> None:
        self.source = source
        self.error = error

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        with self.source.snapshot(revision_id, parent) as snapshot:
            yield snapshot
        raise self.error


def fails(error: Exception) -> Callable[..., None]:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    return fail


def _source(repository: Repository, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    source = Clumsy(repository.source(), error)
    monkeypatch.setattr(repository, "source", lambda: source)


def _told(_repository: Repository, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    really = Events.tell

    def tell(events: Events, hook: str, **arguments: object) -> None:
        if hook == "backy_backup_finished":
            raise error
        really(events, hook, **arguments)

    monkeypatch.setattr(Events, "tell", tell)


PLACES = {
    "the source": _source,
    "what was compared": lambda _repository, patch, error: patch.setattr(Seen, "save", fails(error)),
    "links": lambda repository, patch, error: patch.setattr(repository, "link_last", fails(error)),
    "what tells that it ran": lambda _repository, patch, error: patch.setattr("backy.backup.backup.end", fails(error)),
    "publishing": lambda repository, patch, error: patch.setattr(repository, "publish_if_possible", fails(error)),
    "events": _told,
    "observers": lambda _repository, patch, error: patch.setattr(Events, "__exit__", fails(error)),
    "a second look": lambda _repository, patch, error: patch.setattr(Judge, "recheck", fails(error)),
}
ERRORS = [
    OSError(28, "No space left on device"),
    SourceBusyError("taken"),
    ZeroDivisionError(),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_revision_that_is_complete_is_a_success(repository: Repository, place: str, monkeypatch, caplog) -> None:
    told: list[str] = []
    for number, error in enumerate(ERRORS):
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            caplog.clear()
            if place == "what tells that it ran" and not isinstance(error, OSError):
                continue  # it calls the system and nothing else
            if place != "events":
                patched.setattr(Events, "tell", lambda _events, hook, **_arguments: told.append(hook))
            PLACES[place](repository, patched, error)
            revision = Backup(repository, (f"tag-{number}",)).run()
        assert repository.records.history()[-1].id == revision.id
        assert "backy_backup_failed" not in told
        assert place == "what tells that it ran" or f"{revision.id} is complete, but what follows" in caplog.text
        assert "Traceback" not in caplog.text
    # and the next one is as if nothing had been
    last = Backup(repository, ("last",)).run()
    assert (repository.directory / "last.rev").readlink() == Path(f"{last.id}.rev")
    assert list(repository.directory.glob(".*.running")) == []


def test_a_folder_in_the_place_of_a_link_stops_nobody_and_the_advice_helps(
    repository: Repository, image: Path, caplog, backy
) -> None:
    first = Backup(repository, ("one",)).run()
    directory = repository.directory.rename(repository.directory.with_name("a machine's"))
    link = directory / "last.rev"
    link.unlink()
    link.mkdir()
    for words in (["backup", "two"], ["tags", "add", "-r", first.id, "more"], ["forget", "-r", first.id]):
        done = backy("-b", directory, *words)
        assert done.code == 0, done.err
    done = backy("-b", directory, "backup", "three")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if "last.rev" in line]
    prefix, command = f"WARNING: {link} is a folder, and should lead to the newest revision; '", "mv "
    assert line.startswith(prefix + command)
    assert line.endswith("' makes way")
    subprocess.run(shlex.split(line.removeprefix(prefix).removesuffix("' makes way")), check=True)
    done = backy("-b", directory, "backup", "four")
    assert (done.code, done.err) == (0, "")
    assert backy("-b", directory, "status").out.splitlines()[-1].startswith("3 revisions ")
    assert link.readlink().name.removesuffix(".rev") == done.out.split()[0]


def test_who_can_not_be_told_does_not_make_it_again(repository: Repository) -> None:
    command = [Path(sys.executable).with_name("backy"), "-b", repository.directory, "backup", "daily"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    (revision,) = repository.records.history()
    expected = f"WARNING: {revision.id} is complete, but standard output can not be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (0, expected)
