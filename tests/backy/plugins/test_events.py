from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest

from backy import hookspecs
from backy.api import ConsoleCommand, Mismatch, Report, SourceError
from backy.backup.backup import Backup
from backy.errors import BackyError, VerificationError
from backy.hookspecs import hookimpl
from backy.plugins.events import Events
from backy.repository.repository import Repository


class Recorder:
    """An event plugin that notes every call, and raises `error` from the events named in `failing`."""

    def __init__(self, *failing: str, error: BaseException | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._failing = failing
        self._error = error or RuntimeError("the pager is broken")

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if call[0] in self._failing:
            raise self._error

    @hookimpl
    def backy_backup_starting(self, job, tags) -> None:
        self._note("starting", job, tags)

    @hookimpl
    def backy_backup_finished(self, job, revision_id) -> None:
        self._note("finished", job, revision_id)

    @hookimpl
    def backy_backup_failed(self, job, error) -> None:
        self._note("failed", job, error)

    @hookimpl
    def backy_verification_failed(self, job, revision_id, mismatches) -> None:
        self._note("mismatch", job, revision_id, mismatches)

    @hookimpl
    def backy_restore_finished(self, job, revision_id, target) -> None:
        self._note("restored", job, revision_id, target)


def events(**plugins: object) -> Events:
    """Return events for `plugins`, each in a manager of its own."""
    managers = {}
    for name, plugin in plugins.items():
        managers[name] = pluggy.PluginManager("backy")
        managers[name].add_hookspecs(hookspecs)
        managers[name].register(plugin, name)
    return Events(managers)


class Suspicious:
    """A verifier that finds fault with two chunks."""

    def verify(self, snapshot, image, mismatch, progress) -> Report:
        for index in (0, 2):
            mismatch(Mismatch(index, "made up", b"expected", b"found"))
        return Report("suspicious", 2, 2)


def test_hook_backy_backup_starting_is_asked_before_anything_is_created(repository: Repository) -> None:
    class Onlooker:
        @hookimpl
        def backy_backup_starting(self, job, tags) -> None:
            seen.append((job, tags, sorted(path.name for path in repository.directory.glob("*.rev"))))

    seen: list[Any] = []
    Backup(repository, ("daily", "weekly"), events=events(onlooker=Onlooker())).run()

    assert seen == [(repository.job, ("daily", "weekly"), [])]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackyError("the snapshot quota is used up"), "the snapshot quota is used up"),
        (RuntimeError("boom"), "RuntimeError: boom"),
        (SystemExit(0), "SystemExit: 0"),
    ],
)
def test_hook_backy_backup_starting_may_veto(error: BaseException, reason: str, repository: Repository) -> None:
    sentinel = Recorder("starting", error=error)
    witness = Recorder()

    with pytest.raises(BackyError, match=f"^hook 'sentinel' refuses the backup: {reason}$"):
        Backup(repository, ("daily",), events=events(sentinel=sentinel, witness=witness)).run()

    assert repository.records.survey() == ([], [])
    assert witness.calls == [("failed", repository.job, f"hook 'sentinel' refuses the backup: {reason}")]


def test_hook_backy_backup_finished_is_told_of_the_complete_revision(repository: Repository) -> None:
    class Onlooker:
        @hookimpl
        def backy_backup_finished(self, job, revision_id) -> None:
            seen.append((job, revision_id, repository.records.read(revision_id).complete))

    seen: list[Any] = []
    revision = Backup(repository, ("daily",), events=events(onlooker=Onlooker())).run()

    assert seen == [(repository.job, revision.id, True)]


def test_hook_backy_backup_failed_is_told_the_cause(repository: Repository, image: Path) -> None:
    image.unlink()
    recorder = Recorder()

    with pytest.raises(SourceError) as failed:
        Backup(repository, ("daily",), events=events(recorder=recorder)).run()

    assert [call[0] for call in recorder.calls] == ["starting", "failed"]
    assert recorder.calls[-1] == ("failed", repository.job, str(failed.value))


def test_hook_backy_verification_failed_is_told_how_many_chunks_differ(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "verifiers", lambda _default: [Suspicious()])
    recorder = Recorder()

    with pytest.raises(VerificationError):
        Backup(repository, ("daily",), events=events(recorder=recorder)).run()

    assert [call[0] for call in recorder.calls] == ["starting", "mismatch", "failed"]
    event, job, revision, mismatches = recorder.calls[1]
    assert (event, job, mismatches) == ("mismatch", repository.job, 2)
    assert len(revision) > 10
    assert repository.records.survey() == ([], [])


PAGER = """
from pathlib import Path
from backy.hookspecs import hookimpl
@hookimpl
def backy_restore_finished(job, revision_id, target): (job.directory / "pager").write_text(f"{revision_id} {target}")
@hookimpl
def backy_backup_finished(job): raise RuntimeError("the pager\\nis broken")
"""


def test_hook_backy_restore_finished_is_told_the_target(
    distribution: Callable[..., str], backy: Callable, repository: Repository, tmp_path: Path
) -> None:
    distribution("acme", {"backy.hooks": ["pager"]}, PAGER)
    revision = Backup(repository, ("daily",)).run()
    target = tmp_path / "restored"

    assert backy("-b", repository.directory, "restore", target).code == 0
    assert (repository.directory / "pager").read_text() == f"{revision.id} {target}"


@pytest.mark.parametrize("error", [RuntimeError("the pager is broken"), SystemExit(1)])
def test_an_observer_that_raises_stops_neither_the_rest_nor_the_backup(
    error: BaseException, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Recorder("finished", error=error), Recorder()

    revision = Backup(repository, ("daily",), events=events(broken=broken, sound=sound)).run()

    assert repository.records.history() == [revision]
    assert sound.calls[-1] == ("finished", repository.job, revision.id)
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.getMessage() == (
        f"hook 'broken' failed in backy_backup_finished with {type(error).__name__}: {error}; nothing depends on it"
    )


def test_an_observer_that_raises_is_one_line_to_the_user(
    distribution: Callable[..., str], backy: Callable, repository: Repository
) -> None:
    distribution("acme", {"backy.hooks": ["pager"]}, PAGER)

    result = backy("-b", repository.directory, "backup", "daily")

    assert result.code == 0
    assert result.err == (
        "WARNING: hook 'pager' failed in backy_backup_finished with RuntimeError: the pager is broken; "
        "nothing depends on it\n"
    )
    assert "Traceback" in backy("-v", "-b", repository.directory, "backup", "daily").err


def test_an_event_plugin_that_can_not_be_loaded_is_left_out_with_a_warning(
    distribution: Callable[..., str], backy: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.hooks": ["broken"]}, "raise ImportError('no pager')")
    distribution("zeta", {"backy.hooks": ["pager"]}, PAGER)

    result = backy("-b", repository.directory, "backup", "daily")
    assert result.code == 0
    assert "WARNING: hook 'broken' of acme 1.0 is broken: ImportError: no pager\n" in result.err
    assert "hook 'pager' failed" in result.err

    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "acme,zeta")
    assert backy("-b", repository.directory, "backup", "daily").err == ""


class Offers:
    """An event plugin that offers commands for the console."""

    def __init__(self, *commands: object) -> None:
        self._commands = commands

    @hookimpl
    def backy_console_commands(self):
        yield from self._commands


def command(name: str, text: str = "") -> ConsoleCommand:
    return ConsoleCommand(name, "Help.", lambda words: text or " ".join(words))


def test_hook_backy_console_commands_collects_what_all_plugins_offer() -> None:
    found = events(a=Offers(command("drives"), command("load")), b=Offers(command("eject"))).console_commands()
    assert sorted(found) == ["drives", "eject", "load"]
    assert found["load"].run(["a", "b"]) == "a b"


def test_hook_backy_console_commands_takes_the_first_of_one_name() -> None:
    found = events(a=Offers(command("drives", "first")), b=Offers(command("drives", "second"))).console_commands()
    assert found["drives"].run([]) == "first"


@pytest.mark.parametrize("unfit", ["drives", command("two words"), command(""), command("a\0")])
def test_hook_backy_console_commands_that_are_none_are_left_out(
    unfit: object, caplog: pytest.LogCaptureFixture
) -> None:
    found = events(a=Offers(command("drives"), unfit), b=Offers(command("eject"))).console_commands()
    assert list(found) == ["eject"]
    assert "hook 'a' adds no commands: it failed with TypeError" in caplog.text
