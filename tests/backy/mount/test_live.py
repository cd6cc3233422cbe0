"""Live restores to the target of a plugin, which can be anything; for Ceph see tests/backy_sources_ceph/live."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from backy.errors import ExitCode
from backy.repository.repository import Repository

JUKEBOX = """
import json
import signal
from contextlib import contextmanager
from pathlib import Path
from backy.api import TargetError
from backy.hookspecs import hookimpl
@hookimpl
def backy_source(config): ...
@hookimpl
def backy_source_config(argument): return {}
class Jukebox:
    def __init__(self, path):
        self.path = path
    def told(self, *words):
        with Path(f"{self.path}.log").open("a") as log:
            log.write(json.dumps(words) + "\\n")
        if words[0] in self.path.name:
            raise TargetError(f"{words[0]} failed")
    @contextmanager
    def serve(self, image, host, port, token):
        self.image = image
        self.told("serve", host, port, len(token) > 30)
        yield port or 4711
    def require_new(self):
        self.told("require_new")
    def prepare(self):
        self.told("prepare")
    def copy(self, progress):
        signals = signal.SIGINT, signal.SIGTERM
        self.told("copy", *(signal.getsignal(one) == signal.SIG_DFL for one in signals))
        self.path.write_bytes(self.image.pread(0, self.image.size))
        progress(self.image.size)
    def commit(self):
        self.told("commit")
    def abort(self, token):
        self.told("abort", len(token) > 30)
@hookimpl
def backy_live_restore(argument, options, config):
    if options: Path(f"{argument}.options").write_text(json.dumps(options))
    return Jukebox(Path(argument))
"""
EVENTS = """
from pathlib import Path
from backy.hookspecs import hookimpl
@hookimpl
def backy_restore_finished(revision, target):
    with Path("events").open("a") as events: events.write(f"finished {revision.id} {target}\\n")
@hookimpl
def backy_restore_failed(target, error):
    with Path("events").open("a") as events: events.write(f"failed {target} {error}\\n")
"""


@pytest.fixture
def live(
    backy: Callable, repository: Repository, distribution: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable:
    """Call `backy restore --live jukebox:NAME` as `live(name, *options)`."""
    distribution("acme", {"backy.sources": ["jukebox"]}, JUKEBOX)
    distribution("bell", {"backy.hooks": ["bell"]}, EVENTS)
    monkeypatch.chdir(tmp_path)
    assert backy("-b", repository.directory, "backup", "daily").code == 0
    return lambda name, *options: backy("-b", repository.directory, "restore", "--live", *options, f"jukebox:{name}")


def said(name: str) -> list[list[object]]:
    """Return what the target was told."""
    return [json.loads(line) for line in Path(f"{name}.log").read_text().splitlines()]


def mark(repository: Repository) -> Path:
    return repository.directory / "in-use" / repository.records.linked()


def test_hook_backy_live_restore_is_called_in_order(live: Callable, repository: Repository, image: Path) -> None:
    done = live("disc", "--listen", "backup1.example:80")

    revision = repository.records.linked()
    text = f"jukebox:disc can be used now; {revision} is served at backup1.example:80\n"
    assert (done.code, done.out, done.err) == (0, text, "")
    serve = ["serve", "backup1.example", 80, True]
    assert said("disc") == [["require_new"], serve, ["prepare"], ["copy", True, True], ["commit"]]
    assert Path("disc").read_bytes() == image.read_bytes()
    assert Path("events").read_text() == f"finished {revision} jukebox:disc\n"
    assert not mark(repository).exists()


@pytest.mark.parametrize(
    ("failing", "again", "left"),
    [
        ("require_new", ["require_new", "serve"], False),
        ("serve", ["require_new", "serve"], False),
        ("prepare", ["serve", "prepare", "copy"], True),
        ("copy", ["serve", "prepare", "copy"], True),
        ("commit", ["serve", "commit"], True),
    ],
)
def test_what_failed_is_begun_anew_or_goes_on_at_the_same_address(
    live: Callable, repository: Repository, failing: str, again: list[str], *, left: bool
) -> None:
    failed = live(failing, "--local")

    assert (failed.code, mark(repository).exists()) == (1, left)
    assert failed.err.endswith(f"Error: {failing} failed\n")
    state = "has everything that it lacked" if failing == "commit" else "can not be used while nobody serves"
    assert (f" {state}" in failed.err) == left
    assert Path("events").read_text() == f"failed jukebox:{failing} {failing} failed\n"
    Path(f"{failing}.log").unlink()
    assert live(failing, "--local").code == 1
    called = said(failing)
    assert [one[0] for one in called] == again[: len(called)]
    assert [one[2] for one in called if one[0] == "serve"] == ([4711] if left else [0] * len(called[1:]))


def test_a_revision_is_restored_to_one_place_at_a_time(live: Callable, repository: Repository) -> None:
    live("copy", "--local")
    other = live("other", "--local")

    assert (other.code, other.err.count("\n")) == (ExitCode.BUSY, 1)
    assert said("other") == [["require_new"], ["serve", "127.0.0.1", 0, True]]
    assert "jukebox:copy" in mark(repository).read_text()


def test_abort_frees_the_revision_when_the_target_has_removed_what_it_had(
    live: Callable, repository: Repository
) -> None:
    live("copy", "--local")
    assert live("copy", "--abort").code == 0
    assert said("copy")[-1] == ["abort", True]
    assert not mark(repository).exists()
    live("copy-abort", "--local")
    assert live("copy-abort", "--abort").code == 1
    assert mark(repository).exists()


def test_a_mark_that_is_damaged_is_told_and_keeps_the_revision(
    live: Callable, repository: Repository, backy: Callable
) -> None:
    live("copy", "--local")
    mark(repository).write_text('{"target": 7')
    for options in (["--local"], ["--abort"]):
        done = live("copy", *options)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert f"{mark(repository)} is damaged; once it is removed, the image that it is for can not be" in done.err
    refused = backy("-b", repository.directory, "forget", "-r", "0")
    assert (refused.code, refused.err.count("\n")) == (ExitCode.BUSY, 1)


def test_a_mark_that_can_not_be_read_is_not_called_damaged(live: Callable, repository: Repository) -> None:
    live("copy", "--local")
    mark(repository).unlink()
    mark(repository).mkdir()
    done = live("copy", "--local")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "damaged" not in done.err


def test_handlers_of_signals_are_as_before_when_all_is_copied(live: Callable) -> None:
    signals = signal.SIGINT, signal.SIGTERM
    with ExitStack() as stack:
        for one in signals:
            stack.callback(signal.signal, one, signal.signal(one, print))
        live("copy", "--local")
        assert signal.getsignal(signal.SIGINT) is print
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_it_goes_on_with_its_own_options_only(live: Callable, repository: Repository) -> None:
    live("copy", "--local", "-o", "slot=3")
    Path("copy.options").unlink()
    for options in (["--local"], ["--abort"]):
        done = live("copy", *options, "-o", "slot=4")
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "it began with other options" in done.err
    assert mark(repository).exists()
    for options in (["--local", "-o", "slot=3"], ["--local"], ["--abort"]):
        live("copy", *options)
        assert Path("copy.options").read_text() == '{"slot": "3"}'
        Path("copy.options").unlink()
    assert not mark(repository).exists()


def test_a_mark_leads_to_its_own_revision_only(live: Callable, repository: Repository, tmp_path: Path) -> None:
    live("copy", "--local")
    victim = tmp_path / "victim"
    victim.touch()
    mark(repository).write_text(mark(repository).read_text().replace("{", f'{{"revision":"{victim}",', 1))
    assert live("copy", "--abort").code == 0
    assert (victim.exists(), mark(repository).exists()) == (True, False)


def test_the_folder_of_marks_is_no_link(repository: Repository, tmp_path: Path, backy: Callable) -> None:
    (repository.directory / "in-use").symlink_to(tmp_path)
    done = backy("-b", repository.directory, "status")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "is a symbolic link" in done.err
