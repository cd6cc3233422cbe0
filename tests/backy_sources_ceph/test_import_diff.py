"""Streams made by hand; those of a real cluster are in test_import_of_real_streams.py."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.repository.repository import Repository
from backy_import_diff.stream import opened_stream

PROGRAM = [sys.executable, "-c", "from backy.cli.main import main; main()"]
SIZE = 2 * CHUNK_SIZE + 1000


@pytest.fixture
def run(repository: Repository, backy: Callable) -> Callable:
    return lambda *arguments: backy("-b", repository.directory, *arguments)


@pytest.fixture
def content(run: Callable, tmp_path: Path) -> Callable[[], bytes]:
    """Return the newest revision's image."""

    def restored() -> bytes:
        assert run("restore", "--force", tmp_path / "restored").code == 0
        return (tmp_path / "restored").read_bytes()

    return restored


@pytest.fixture
def write(tmp_path: Path, encode: Callable) -> Callable[..., Path]:
    """Write a stream into a file."""

    def to_file(*records: tuple, **options: int) -> Path:
        (tmp_path / "x.diff").write_bytes(encode(*records, **options))
        return tmp_path / "x.diff"

    return to_file


@pytest.mark.parametrize("version", [1, 2])
def test_a_stream_from_a_file_makes_a_revision(run, write, content, repository: Repository, version: int) -> None:
    path = write(("t", "s1"), ("s", SIZE), ("w", 5000, b"one"), ("w", SIZE - 3, b"end"), version=version)
    done = run("import-diff", path)

    (revision,) = repository.records.history()
    assert (done.code, done.out, done.err) == (0, f"{revision.id} verified\n", "")
    assert (revision.tags, revision.snapshot, revision.size) == (("manual:import",), "s1", SIZE)
    assert content() == b"one".rjust(5003, b"\0").ljust(SIZE - 3, b"\0") + b"end"


def test_a_difference_is_laid_over_the_revision_it_names(
    run, write, content, repository: Repository, image: Path
) -> None:
    run("backup", "daily")
    before = bytearray(image.read_bytes())
    (first,) = repository.records.history()
    path = write(
        ("f", f"backy-{first.id}"),
        ("t", "s2"),
        ("s", len(before)),
        ("z", 10, CHUNK_SIZE),
        ("w", CHUNK_SIZE + 10, b"new"),
    )
    done = run("import-diff", "--tags", "weekly,daily", path)

    assert (done.code, done.err) == (0, "")
    assert repository.records.history()[-1].tags == ("daily", "weekly")
    before[10 : 10 + CHUNK_SIZE] = bytes(CHUNK_SIZE)
    before[CHUNK_SIZE + 10 : CHUNK_SIZE + 13] = b"new"
    assert content() == before


@pytest.mark.parametrize(
    "size", [0, 10, CHUNK_SIZE, CHUNK_SIZE + 100, 4 * CHUNK_SIZE, 5 * CHUNK_SIZE, 7 * CHUNK_SIZE + 5]
)
def test_a_difference_may_have_another_size(
    run: Callable, write: Callable, content: Callable, repository: Repository, size: int
) -> None:
    run("backup", "daily")
    before = content()
    done = run("import-diff", write(("f", f"backy-{repository.records.history()[0].id}"), ("s", size)))

    assert done.code == 0
    assert (" shrank from " in done.err) == (size < len(before))
    assert repository.records.history()[-1].size == size
    assert content() == before[:size].ljust(size, b"\0")
    assert run("verify", "-r", "0").code == 0


def test_a_stream_may_come_by_a_pipe_and_leaves_nothing_else(run, write, content, repository: Repository, tree) -> None:
    stream = write(("s", SIZE), ("w", 0, b"x" * CHUNK_SIZE)).read_bytes()
    call = [*PROGRAM, "-b", repository.directory, "import-diff", "-"]
    done = subprocess.run(call, input=stream, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert content() == (b"x" * CHUNK_SIZE).ljust(SIZE, b"\0")
    assert [name for name in tree(repository.directory) if "tmp" in name and name != "chunks/tmp"] == []


def test_a_file_may_be_standard_input_from_anywhere_in_it(run, write, content, repository: Repository) -> None:
    path = write(("s", SIZE), ("w", 7, b"seven"))
    path.write_bytes(b"prefix" + path.read_bytes())
    call = [*PROGRAM, "-b", repository.directory, "import-diff", "-"]
    with path.open("rb", buffering=0) as stream:
        stream.seek(6)
        done = subprocess.run(call, stdin=stream, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert content() == b"seven".rjust(12, b"\0").ljust(SIZE, b"\0")


@pytest.mark.parametrize("pipe", [True, False])
def test_a_stream_that_is_cut_short_is_one_line_and_makes_nothing(
    write, repository: Repository, tree, pipe: bool
) -> None:
    path = write(("s", SIZE), ("w", 0, b"x" * CHUNK_SIZE))
    stream = path.read_bytes()[:-100]
    path.write_bytes(stream)
    before = tree(repository.directory)
    call = [*PROGRAM, "-b", repository.directory, "import-diff", "-" if pipe else path]
    done = subprocess.run(call, input=stream if pipe else None, capture_output=True, text=False, check=False)

    name = "standard input" if pipe else path
    assert done.returncode == 1
    assert done.stderr.decode() == f"Error: {name} is cut short (at byte {len(stream)}); nothing was imported\n"
    assert tree(repository.directory) == before


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["missing"], 1, "missing: No such file or directory"),
        (["."], 1, ".: Is a directory"),
        (["config"], 1, "config is no stream of 'rbd export-diff'"),
        (["--tags", "a,,b", "config"], 2, "a tag is empty"),
        ([], 2, "FILE is missing"),
    ],
)
def test_what_can_not_be_imported_is_one_line(
    run: Callable, repository: Repository, arguments: list[str], code: int, error: str
) -> None:
    with contextlib.chdir(repository.directory):
        done = run("import-diff", *arguments)

    assert (done.code, done.out) == (code, "")
    assert error in done.err
    assert repository.records.survey() == ([], [])


def test_a_difference_without_its_revision_makes_nothing(run, write, repository: Repository) -> None:
    done = run("import-diff", write(("f", "s1"), ("s", SIZE)))

    assert done.code == 1
    assert done.err.startswith(
        "Error: the image to import is what differs from the snapshot 's1', of which there is no"
    )
    assert repository.records.survey() == ([], [])


def test_a_stream_that_shrinks_while_it_is_read_is_noticed(write, tmp_path: Path) -> None:
    path = write(("s", SIZE), ("w", 0, b"x" * 1000))
    with opened_stream(str(path), tmp_path) as stream:
        path.write_bytes(b"")
        with pytest.raises(Exception, match="became shorter while it was read"):
            stream.snapshot(None).pread(0, 1000)
        with pytest.raises(Exception, match="there are no 2 at"):
            stream.snapshot(None).pread(SIZE - 1, 2)
