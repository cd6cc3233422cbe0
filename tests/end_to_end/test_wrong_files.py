"""Anything may have the name of a file in a repository that came from elsewhere. No command waits for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.scheduler.jobs.repositories import summarize
from backy.testing.clock import Clock
from tests.wrong_files import WRONG

COMMANDS = [
    ["status"],
    ["backup", "again"],
    ["scrub", "light"],
    ["scrub", "deep"],
    ["restore", "-r", "OLD", "TARGET"],
    ["diff", "OLD", "0"],
    ["verify"],
    ["expire"],
    ["purge"],
    ["reports", "list"],
    ["tags", "add", "-r", "0", "more"],
    ["forget", "-r", "OLD"],
]


def _filled(words: list[str], old: Revision, folder: Path) -> list[object]:
    return [{"OLD": old.id, "TARGET": folder / "target"}.get(word, word) for word in words]


@pytest.fixture
def two(repository: Repository, image: Path, clock: Clock) -> Iterator[tuple[Repository, Revision, Revision]]:
    """A repository with two revisions and all files that one can have."""
    old = Backup(repository, ("test",), clock=clock).run()
    with image.open("r+b") as stream:
        stream.write(b"changed")
    new = Backup(repository, ("test",), clock=clock).run()
    # whatever a command makes there
    (repository.directory / ".expired").write_text("{}")
    (repository.directory / ".scrub").touch()
    yield repository, old, new
    shutil.rmtree(repository.directory)


OTHERS = ["README", "restore.py", "audit.py", "last.rev", "last", ".seq", ".expired", ".scrub", ".verified"]


@pytest.mark.parametrize("names", [["OLD.rev"], ["OLD.state"], ["OLD.map"], ["CHUNK"], ["config"], ["store"], OTHERS])
def test_no_command_waits_for_a_pipe(two, backy: Callable, tmp_path: Path, names: list[str]) -> None:
    repository, old, new = two
    directory = repository.directory
    known = {"CHUNK": next(directory.glob("chunks/??/*")), "store": directory / "chunks/store"}
    for path in [known.get(name, directory / name.replace("OLD", old.id)) for name in names]:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    summarize(directory, old.timestamp, new.timestamp)
    for words in COMMANDS:
        done = backy("-b", directory, *_filled(words, old, tmp_path))
        assert done.code in {0, 1}, (words, done.err)
        assert len(re.findall("^Error: ", done.err, re.MULTILINE)) == done.code, (words, done.err)
        assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["OLD.rev", "OLD.state", "OLD.map", "CHUNK"])
def test_no_command_believes_an_absurd_length(two, backy: Callable, tmp_path: Path, name: str) -> None:
    repository, old, new = two
    path = repository.directory / name.replace("OLD", old.id)
    path = next(repository.directory.glob("chunks/??/*")) if name == "CHUNK" else path
    path.chmod(0o600)
    os.truncate(path, 2**43)
    summarize(repository.directory, old.timestamp, new.timestamp)
    for words in COMMANDS:
        done = backy("-b", repository.directory, *_filled(words, old, tmp_path))
        assert done.code in {0, 1}, (words, done.err)
        assert "MemoryError" not in done.err
        assert "more than" in done.err or not done.code, (words, done.err)


def assert_salvage_loses_one_content(backy: Callable, repository: Repository, image: Path, folder: Path) -> None:
    """The same content is in two places of the image, so that two chunks can not be read."""
    done = backy("-b", repository.directory, "restore", "--salvage", folder / "list", folder / "target")
    assert done.code == 1
    assert "2 of 5 chunks could not be read" in done.err
    expected = bytearray(image.read_bytes())
    expected[2 * 2**22 : 4 * 2**22] = bytes(2 * 2**22)
    assert (folder / "target").read_bytes() == expected


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_chunk_that_is_no_file_costs_salvage_that_chunk_alone(two, backy, image: Path, tmp_path, kind) -> None:
    repository, _, new = two
    chunks = repository.records.read_map(new)
    path = next(repository.directory.glob(f"chunks/??/{chunks[2].hex()}.zst"))
    path.unlink()
    WRONG[kind](path)
    assert_salvage_loses_one_content(backy, repository, image, tmp_path)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_of_chunks_that_can_not_be_listed_costs_salvage_these_alone(two, backy, image, tmp_path, kind) -> None:
    repository, _, new = two
    chunks = repository.records.read_map(new)
    folder = repository.directory / "chunks" / chunks[2].hex()[:2]
    assert folder.name not in {chunks[0].hex()[:2], chunks[4].hex()[:2]}
    folder.rename(tmp_path / "elsewhere")
    if kind == "file":
        folder.touch()
    else:
        (tmp_path / "elsewhere" / f"{chunks[2].hex()}.zst").unlink()
        folder.symlink_to(tmp_path / "elsewhere")
    assert_salvage_loses_one_content(backy, repository, image, tmp_path)
    assert backy("-b", repository.directory, "scrub", "deep").code == 1


@pytest.mark.parametrize("folder", ["chunks", "quarantine", "chunks/??"])
def test_a_folder_that_is_a_link_is_refused_and_nothing_behind_it_is_touched(
    two, backy: Callable, tmp_path: Path, tree: Callable, folder: str
) -> None:
    repository, _, _ = two
    directory = repository.directory
    (directory / "quarantine" / "name").mkdir(parents=True)
    path = next(directory.glob(folder))
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = tree(elsewhere)
    words = ["reports", "delete", "--all"] if folder == "quarantine" else ["purge"]
    # all chunks would be dead
    for path in directory.glob("*.rev"):
        path.unlink()
    done = backy("-b", directory, *words)
    assert done.code == 1
    assert "is a symbolic link, which is not followed: put the folder itself there" in done.err
    assert tree(elsewhere) == before


FILES = [
    "config",
    "README",
    "restore.py",
    "audit.py",
    "*.rev",
    "*.state",
    "*.map",
    ".[a-z]*",
    "chunks/store",
    "chunks/??/*",
]


@pytest.mark.parametrize("patterns", [FILES[:1], FILES[1:3], FILES[3:6], FILES[6:7], FILES[7:]])
def test_nothing_is_written_through_links(two, backy: Callable, tmp_path: Path, tree: Callable, patterns) -> None:
    repository, old, _ = two
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in [path for pattern in patterns for path in repository.directory.glob(pattern) if path.is_file()]:
        target = elsewhere / path.name
        path.rename(target)
        path.symlink_to(target)
    before = tree(elsewhere)
    for words in COMMANDS:
        backy("-b", repository.directory, *_filled(words, old, tmp_path))
        assert tree(elsewhere) == before, words
