from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive


def spoil_record(directory: Path) -> None:
    path = next(path for path in directory.glob("*.rev") if not path.is_symlink())
    path.unlink()
    path.write_bytes(b"no JSON")


def test_backup_prints_the_revision_and_how_it_was_verified(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "backup", "weekly,daily")

    (revision,) = repository.records.history()
    assert (done.code, done.out, done.err) == (0, f"{revision.id} verified\n", "")
    assert revision.tags == ("daily", "weekly")


@pytest.mark.parametrize("tags", ["", "daily,", "a,,b", "a\nb", "\x1b[31m"])
def test_wrong_tags_are_refused_before_anything_is_done(backy, repository: Repository, tree, tags: str) -> None:
    before = tree(repository.directory)
    done = backy("-b", repository.directory, "backup", tags)

    assert done.code == 2
    assert "Error: TAGS: " in done.err
    assert "\x1b" not in done.err
    assert {**tree(repository.directory), ".seq": None} == {**before, ".seq": None}


def test_a_tag_that_the_schedule_does_not_have_is_refused(backy, scheduled: Repository, tree) -> None:
    before = tree(scheduled.directory)
    done = backy("-b", scheduled.directory, "backup", "daily,hourly")

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: unknown tag 'hourly'; the schedule has: daily, weekly. ")
    assert tree(scheduled.directory) == before


@pytest.mark.parametrize("words", [["manual:hourly,daily"], ["hourly,daily", "--force"]])
def test_a_tag_may_be_given_by_hand_or_by_force(backy, scheduled: Repository, words: list[str]) -> None:
    assert backy("-b", scheduled.directory, "backup", *words).code == 0
    assert scheduled.records.history()[-1].tags == tuple(sorted(words[0].split(",")))


def test_a_missing_source_is_one_line_and_harms_nothing(backy, repository: Repository, image: Path, tree) -> None:
    backy("-b", repository.directory, "backup", "daily")
    before = tree(repository.directory)
    image.unlink()
    done = backy("-b", repository.directory, "backup", "daily")

    assert (done.code, done.out, done.err) == (1, "", f"Error: source {image}: No such file or directory\n")
    assert {**tree(repository.directory), ".seq": None} == {**before, ".seq": None}


def test_a_busy_repository_ends_with_75(backy, repository: Repository, tree) -> None:
    with exclusive(repository.directory, BACKUP_LOCK):
        before = tree(repository.directory)
        done = backy("-b", repository.directory, "backup", "daily")

    assert done.code == 75
    assert done.err == f"Error: {repository.directory} is busy: another backy command holds .backup; try again later\n"
    assert {**tree(repository.directory), ".seq": None} == {**before, ".seq": None}


def test_a_backup_waits_for_a_purge_and_says_so(repository: Repository) -> None:
    program = "from backy.cli.main import main; main()"
    call = [sys.executable, "-c", program, "-b", repository.directory, "backup", "daily"]
    with exclusive(repository.directory, PURGE_LOCK):
        process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        waiting = process.stderr.readline()
        assert repository.records.survey() == ([], [])
    out, err = process.communicate(timeout=60)

    assert "waiting for the command that holds .purge" in waiting
    assert (process.returncode, err) == (0, "")
    assert out.endswith(" verified\n")


def test_a_damaged_record_is_a_warning_and_the_backup_is_made(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    spoil_record(repository.directory)
    done = backy("-b", repository.directory, "backup", "daily")

    assert done.code == 0
    assert "'backy forget -r ID' removes it" in done.err
    assert len(repository.records.history()) == 1


PLAIN = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Makes root somebody whom the modes of files concern."""


@pytest.mark.parametrize("command", [["backup", "daily"], ["purge"], ["forget", "-r", "0"], ["init", "file", "x"]])
def test_a_repository_that_may_not_be_written_is_one_line(repository: Repository, tree, command: list[str]) -> None:
    directory = repository.directory / "new" if command[0] == "init" else repository.directory
    call = [*PLAIN, sys.executable, "-c", "from backy.cli.main import main; main()", "-b", directory, *command]
    (repository.directory / BACKUP_LOCK).unlink()
    repository.directory.chmod(0o555)
    before = tree(repository.directory)
    done = subprocess.run(call, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(": Permission denied\n")
    assert done.stderr.count("\n") == 1
    assert {**tree(repository.directory), ".seq": None} == {**before, ".seq": None}


def data(path: Path, *places: int, size: int, length: int = 2**20) -> None:
    """Write a sparse file with random bytes at `places`, others than before."""
    with path.open("r+b" if path.exists() else "w+b") as stream:
        stream.truncate(size)
        for place in places:
            stream.seek(place)
            first = stream.read(1) or b"\0"
            stream.seek(place)
            # one random byte may be the one that was there
            stream.write(bytes([first[0] ^ 1]) + os.urandom(min(length, size - place) - 1))


MEASURED = """
import os, resource, subprocess, sys
done = subprocess.run([sys.executable, "-c", "from backy.cli.main import main; main()", *sys.argv[1:]])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def measured(*arguments: object) -> int:
    """Run the command line in a process of its own and return its peak memory in MiB."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout.split()[-1]) // 1024


def same(one: Path, other: Path) -> bool:
    """Compare two sparse files where either has data."""
    with one.open("rb") as a, other.open("rb") as b:
        sizes = {os.fstat(stream.fileno()).st_size for stream in (a, b)}
        for stream in (a, b):
            position = 0
            while position < max(sizes):
                try:
                    position = os.lseek(stream.fileno(), position, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(stream.fileno(), position, os.SEEK_HOLE)
                while position < end:
                    length = min(2**20, end - position)
                    if os.pread(a.fileno(), length, position) != os.pread(b.fileno(), length, position):
                        return False
                    position += length
        return len(sizes) == 1


@pytest.mark.parametrize(
    ("size", "places"),
    [
        (0, []),
        (1, [0]),
        (CHUNK_SIZE - 1, [0]),
        (CHUNK_SIZE, [0, CHUNK_SIZE - 2**20]),
        (CHUNK_SIZE + 1, [CHUNK_SIZE]),
        (2**30 + 512, [0, 77 * CHUNK_SIZE - 5, 2**30]),
    ],
    ids=["nothing", "a byte", "almost a chunk", "a chunk", "just more than a chunk", "a sparse GiB and a sector"],
)
def test_images_of_every_size_come_back(backy, tmp_path: Path, size: int, places: list[int]) -> None:
    image, vm, target = tmp_path / "disk", tmp_path / "vm", tmp_path / "out"
    data(image, *places, size=size)
    assert backy("-b", vm, "init", "file", image).code == 0
    for tag in ("full", "incremental"):
        assert backy("-b", vm, "backup", tag).code == 0
        assert backy("-b", vm, "restore", "--force", target).code == 0
        assert same(image, target)
        assert target.stat().st_blocks <= image.stat().st_blocks
        data(image, *places[:1], size=size, length=512)
    assert not size or not same(image, target)


def test_an_image_of_ten_tib_needs_memory_for_its_map_only(tmp_path: Path) -> None:
    image, vm, target = tmp_path / "disk", tmp_path / "vm", tmp_path / "out"
    size, length = 10 * 2**40, 10 * 2**20
    data(image, 0, size - length, size=size, length=length)
    peaks = [measured("-b", vm, "init", "file", image)]
    for tag in ("full", "incremental"):
        peaks.append(measured("-b", vm, "backup", tag))
        data(image, 2**40, size=size, length=512)
    target.write_bytes(b"old" * 5000)
    peaks.append(measured("-b", vm, "restore", "--force", "-r", "full", target))
    assert target.stat().st_blocks == 2 * length // 512
    peaks.append(measured("-b", vm, "restore", "--force", target))
    peaks.append(measured("-b", vm, "purge"))

    assert max(peaks) < 300, peaks
