from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, exclusive

KEEPING = """
from contextlib import contextmanager
from pathlib import Path
from backy.api import SourceError
from backy.hookspecs import hookimpl
from backy_sources_file import FileSource

class Source:
    verifier = "full"

    def __init__(self, path, kept):
        self._file = FileSource(path, "job", "off")
        self._kept = kept

    @contextmanager
    def snapshot(self, revision_id, parent):
        with self._file.snapshot(revision_id, parent) as snapshot:
            yield snapshot
        (self._kept / revision_id).touch()

    def retain(self, revision_ids):
        if (self._kept / "away").exists():
            raise SourceError("nobody answers")
        for path in self._kept.iterdir():
            if path.name not in revision_ids:
                path.unlink()

@hookimpl
def backy_source(config):
    return Source(Path(config["filename"]), Path(config["kept"]))

@hookimpl
def backy_source_config(argument):
    filename, kept = argument.split(",")
    return {"filename": filename, "kept": kept}
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the source keeps a file for each revision."""
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


@pytest.fixture
def keeping(backy, distribution: Callable[..., str], image: Path, kept: Path, tmp_path: Path) -> Iterator[Repository]:
    """A repository of two revisions, whose source is third-party and keeps something for each."""
    distribution("acme", {"backy.sources": ["keeping"]}, KEEPING)
    directory = tmp_path / "keeping"
    assert backy("-b", directory, "init", "keeping", f"{image},{kept}").code == 0
    for tag in ("old", "new"):
        assert backy("-b", directory, "backup", tag).code == 0
    return Repository.open(directory)


def names(kept: Path) -> set[str]:
    return {path.name for path in kept.iterdir()}


def test_a_source_lets_go_of_what_it_keeps_for_a_revision_that_is_forgotten(backy, keeping, kept) -> None:
    old, new = keeping.records.history()
    assert names(kept) == {old.id, new.id}
    done = backy("-b", keeping.directory, "forget", "-r", "new")

    assert (done.code, done.out, done.err) == (0, f"Forgot {new.id}\n", "")
    assert names(kept) == {old.id}


def test_a_revision_is_forgotten_even_if_the_source_is_out_of_reach(backy, keeping, kept) -> None:
    (kept / "away").touch()
    done = backy("-b", keeping.directory, "forget", "-r", "new")

    assert done.code == 0
    assert "what the source keeps for forgotten revisions may still be there: nobody answers" in done.err
    assert len(keeping.records.history()) == 1


def test_a_revision_is_forgotten_even_if_the_plugin_of_its_source_is_gone(backy, keeping) -> None:
    config = keeping.directory / "config"
    config.chmod(0o600)
    config.write_text(config.read_text().replace("type: keeping", "type: gone"))
    done = backy("-b", keeping.directory, "forget", "-r", "new")

    assert done.code == 0
    assert "may still be there: no source 'gone'" in done.err


def test_release_leaves_nothing_behind_and_harms_no_revision(backy, keeping, kept, tree) -> None:
    before = tree(keeping.directory)
    done = backy("-b", keeping.directory, "release")

    assert (done.code, done.out, done.err) == (0, "Released\n", "")
    assert names(kept) == set()
    after = tree(keeping.directory)
    assert {name for name in after if after[name] != before.get(name)} == {"journal"}
    assert before.keys() == after.keys()
    written = [(line.act, line.step, line.revision) for line, _ in keeping.records.journal.read()[-2:] if line]
    assert written == [("release", "intended", None), ("release", "done", None)]
    assert backy("-b", keeping.directory, "audit").code == 0
    assert backy("-b", keeping.directory, "backup", "after all").code == 0


def test_release_says_if_the_source_is_out_of_reach(backy, keeping, kept) -> None:
    (kept / "away").touch()
    done = backy("-b", keeping.directory, "release")

    assert (done.code, done.out, done.err) == (1, "", "Error: nobody answers\n")
    # nobody knows how much of it came about
    assert backy("-b", keeping.directory, "audit").code == 0
    assert backy("-b", keeping.directory, "tags", "add", "-r", "0", "manual:x").code == 0
    assert backy("-b", keeping.directory, "audit").code == 0
    written = [(line.act, line.step) for line, _ in keeping.records.journal.read()[-4:] if line]
    assert written == [("release", "intended"), ("release", "dropped"), ("tags", "intended"), ("tags", "done")]


def test_release_ends_with_75_while_a_backup_runs(backy, keeping) -> None:
    with exclusive(keeping.directory, BACKUP_LOCK):
        assert backy("-b", keeping.directory, "release").code == 75


def test_a_source_that_never_keeps_anything_is_asked_nothing(
    backy, distribution: Callable[..., str], image: Path, tmp_path: Path
) -> None:
    distribution("acme", {"backy.sources": ["old"]}, KEEPING.replace("def retain", "def _no_retain"))
    directory = tmp_path / "old"
    (tmp_path / "unused").mkdir()
    assert backy("-b", directory, "init", "old", f"{image},{tmp_path / 'unused'}").code == 0
    assert backy("-b", directory, "backup", "daily").code == 0

    done = backy("-b", directory, "release")
    assert (done.code, done.out) == (0, "The source 'old' keeps nothing\n")
    assert backy("-b", directory, "forget", "-r", "0", "--force", "--reason", "test").err == ""
