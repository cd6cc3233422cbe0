from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backy.api import CHUNK_SIZE
from backy.repository.repository import Repository
from backy.system.locking import PURGE_LOCK, exclusive

PROGRAM = [sys.executable, "-c", "from backy.cli.main import main; main()"]


@pytest.fixture(autouse=True)
def revision(backy, repository: Repository) -> str:
    """The id of the only revision."""
    assert backy("-b", repository.directory, "backup", "daily").code == 0
    return repository.records.history()[0].id


def damage(repository: Repository, index: int) -> str:
    identity = repository.records.read_map(repository.records.history()[0])[index].hex()
    path = next((repository.directory / "chunks").glob(f"??/{identity}.*"))
    path.unlink()
    return identity


def test_restore_writes_the_newest_revision_in_silence(
    backy, repository: Repository, image: Path, tmp_path: Path
) -> None:
    done = backy("-b", repository.directory, "restore", tmp_path / "out")

    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("specification", ["0", "last", "latest", "daily"])
def test_restore_takes_any_spec_and_writes_to_a_pipe(repository: Repository, image: Path, specification: str) -> None:
    call = [*PROGRAM, "-b", repository.directory, "restore", "-r", specification, "-"]
    done = subprocess.run(call, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == image.read_bytes()


def test_standard_output_is_told_by_a_dash(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "restore", "-")

    assert (done.code, done.err) == (0, "")
    assert done.out


def test_a_pipe_that_is_closed_early_ends_it_without_a_traceback(repository: Repository, image: Path) -> None:
    call = [*PROGRAM, "-b", repository.directory, "restore", "-"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(100) == image.read_bytes()[:100]
        process.stdout.close()
        error = process.stderr.read()

    assert process.returncode == 1
    assert b"Traceback" not in error
    assert error.count(b"\n") <= 1


@pytest.mark.parametrize("pipe", [True, False])
def test_a_damaged_chunk_is_one_line_that_names_it(
    backy, repository: Repository, image: Path, tmp_path: Path, pipe: bool
) -> None:
    identity = damage(repository, 2)
    if pipe:
        call = [*PROGRAM, "-b", repository.directory, "restore", "-"]
        done = subprocess.run(call, capture_output=True, check=False)
        code, error = done.returncode, done.stderr.decode()
        assert done.stdout == image.read_bytes()[: 2 * CHUNK_SIZE]
    else:
        result = backy("-b", repository.directory, "restore", tmp_path / "out")
        code, error = result.code, result.err
        assert error.endswith(f"; {tmp_path}/out is incomplete\n")

    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(f"Error: chunk {identity[:12]} at byte 8388608: ")


@pytest.mark.parametrize(
    ("specification", "target", "error"),
    [
        ("1", "out", "no revision 1: they are numbered from 0"),
        ("nope", "out", "no revision 'nope'; there are: last, "),
        ("0", ".", "neither a file nor a block device"),
        ("0", "vm/out", "lies inside of the repository"),
        ("0", "missing/out", "missing/out: No such file or directory"),
    ],
)
def test_what_can_not_be_restored_is_one_line(
    backy, tmp_path: Path, specification: str, target: str, error: str
) -> None:
    before = set(tmp_path.rglob("*"))
    done = backy("-b", tmp_path / "vm", "restore", "-r", specification, tmp_path / target)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert error in done.err
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("missing", [True, False])
def test_a_map_that_is_missing_or_cut_short_is_one_line_and_touches_no_target(
    backy, repository: Repository, revision: str, tmp_path: Path, missing: bool
) -> None:
    path = repository.directory / f"{revision}.map"
    content = path.read_bytes()
    path.unlink()
    if not missing:
        path.write_bytes(content[:-1])
    target = tmp_path / "out"
    target.write_bytes(b"precious")
    done = backy("-b", repository.directory, "restore", target)

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{path}" in done.err
    assert target.read_bytes() == b"precious"


def test_a_restore_waits_for_a_purge(repository: Repository, image: Path, tmp_path: Path) -> None:
    call = [*PROGRAM, "-b", repository.directory, "restore", tmp_path / "out"]
    with exclusive(repository.directory, PURGE_LOCK):
        process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "waiting for the command that holds .purge" in process.stderr.readline()
        assert not (tmp_path / "out").exists()
    assert process.communicate(timeout=60) == (None, "")
    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


def test_what_is_right_already_is_not_read_again(backy, repository: Repository, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(image.read_bytes()[: 2 * CHUNK_SIZE])
    damage(repository, 0)
    done = backy("-b", repository.directory, "restore", "--resume", target)

    assert (done.code, done.out, done.err) == (0, "", "")
    assert target.read_bytes() == image.read_bytes()


def test_standard_output_can_not_be_resumed(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "restore", "--resume", "-")

    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: '-' can not be read back: only files and block devices can be resumed\n"


@pytest.mark.parametrize("target", [["out"], ["--resume", "out"], ["-"]])
def test_salvage_goes_on_over_damage_and_says_so(
    repository: Repository, image: Path, tmp_path: Path, target: list[str]
) -> None:
    damage(repository, 0)
    call = [*PROGRAM, "-b", repository.directory, "restore", "--salvage", "map", *target]
    done = subprocess.run(call, capture_output=True, check=False, cwd=tmp_path)

    restored = done.stdout if target == ["-"] else (tmp_path / "out").read_bytes()
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: 1 of 5 chunks could not be read, zeroes are in their place, see ")
    assert done.stderr.count(b"\n") == 1
    assert restored == bytes(CHUNK_SIZE) + image.read_bytes()[CHUNK_SIZE:]
    assert (tmp_path / "map").read_text().splitlines()[-2:] == [
        "0x00000000  0x00400000  -",
        "0x00400000  0x00C003E8  +",
    ]


@pytest.mark.parametrize("suffix", [".rev", ".map", ".zst"])
def test_a_read_error_advises_nobody_to_give_a_revision_up(
    backy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """The disk may be well again behind another cable."""
    opened = os.open

    def fail(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).endswith(suffix):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", fail)
    done = backy("-b", tmp_path / "vm", "restore", tmp_path / "out")

    assert (done.code, done.out) == (1, "")
    assert "Input/output error" in done.err
    assert "forget" not in done.err


def test_a_file_that_exists_wants_force(backy, repository: Repository, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"precious")
    refused = backy("-b", repository.directory, "restore", target)

    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        f"Error: {target} exists already; --force replaces it, --resume completes what an earlier restore left of it\n"
    )
    assert target.read_bytes() == b"precious"
    assert backy("-b", repository.directory, "restore", "--force", target).code == 0
    assert target.read_bytes() == image.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can make links of others")
def test_a_link_of_somebody_else_is_one_line(backy, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("precious")
    os.lchown(tmp_path / "link", 1234, 1234)

    for words in (["restore", tmp_path / "link"], ["restore", "--salvage", tmp_path / "link", tmp_path / "out"]):
        done = backy("-b", repository.directory, *words)
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"Error: {tmp_path}/link: is a symbolic link of user 1234; only your own and those of root are followed\n"
        )
    done = backy("-l", tmp_path / "link", "-b", repository.directory, "status")
    assert (done.code, done.out) == (1, "")
    assert "is a symbolic link of user 1234" in done.err
    assert not (tmp_path / "precious").exists()
