"""Streams that `rbd` makes, compared by SHA-256 with what `rbd export` gives."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.repository.repository import Repository

SIZE = 24 * 2**20


@pytest.fixture(params=[{}, {"stripe_unit": 65536, "stripe_count": 4}, {"features": 1}], ids=str)
def disk(request: pytest.FixtureRequest, disks: Callable):
    """An image: an ordinary one, one with stripes, and one without an object map."""
    return disks(SIZE, **request.param)


def export(disk, *words: str) -> bytes:
    """Run an export of `rbd`, whose last word is the file to write."""
    command, *options, snapshot, file = words
    return disk.rbd(command, *options, f"{disk.pool}/{disk.name}{snapshot}", file)


def digest(disk, snapshot: str = "") -> str:
    return hashlib.sha256(export(disk, "export", snapshot, "-")).hexdigest()


def change(disk, chance: random.Random, snapshot: str | None = None) -> None:
    """Write, discard, zero and now and then resize, as guests and operators do, and then make a snapshot."""
    with disk.opened() as image:
        for _ in range(6):
            length = chance.choice([512, 4096, 70_000, 3 * 2**20])
            offset = chance.randrange(0, max(image.size() - length, 1), 512)
            length = min(length, image.size() - offset)
            match chance.randrange(4):
                case 0:
                    image.discard(offset, length)
                case 1:
                    image.write_zeroes(offset, length)
                case _:
                    image.write(chance.randbytes(length), offset)
        if chance.random() < 0.4:
            image.resize(chance.randrange(SIZE // 2, SIZE, 512))
        if snapshot:
            image.create_snap(snapshot)


@pytest.fixture
def run(backy: Callable, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run a command on the repository, in the temporary folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: backy("-b", repository.directory, *arguments)


@pytest.fixture
def newest(run: Callable) -> Callable[[], str]:
    """Return the digest of the newest revision's image."""

    def digest() -> str:
        assert run("restore", "--force", "restored").code == 0
        return hashlib.sha256(Path("restored").read_bytes()).hexdigest()

    return digest


def test_diffs_from_snapshot_to_snapshot(disk, run: Callable, newest: Callable, rounds: Callable) -> None:
    chance = random.Random(3)
    since: list[str] = []
    for number in range(rounds(4, 60)):
        name = f"s{number}"
        change(disk, chance, name)
        options = [*since, *(["--whole-object"] if number % 3 == 2 else [])]
        export(disk, "export-diff", *options, f"@{name}", f"{name}.diff")
        done = run("import-diff", f"{name}.diff")

        # the images change their sizes at random, and one that gets smaller is told of
        assert (done.code, [line for line in done.err.splitlines() if " shrank from " not in line]) == (0, [])
        assert newest() == digest(disk, f"@{name}")
        since = ["--from-snap", name]


def test_merged_diffs(disk, run: Callable, newest: Callable) -> None:
    chance = random.Random(4)
    change(disk, chance, "a")
    export(disk, "export-diff", "@a", "a.diff")
    change(disk, chance, "b")
    export(disk, "export-diff", "--from-snap", "a", "@b", "b.diff")
    disk.rbd("merge-diff", "a.diff", "b.diff", "ab.diff")

    assert run("import-diff", "ab.diff").code == 0
    assert newest() == digest(disk, "@b")


def test_a_diff_since_the_snapshot_of_a_revision_comes_by_a_pipe(
    disk, repository: Repository, run: Callable, newest: Callable
) -> None:
    chance = random.Random(5)
    program = ["backy", "-b", repository.directory, "import-diff", "-"]
    change(disk, chance)
    subprocess.run(program, input=export(disk, "export-diff", "", "-"), check=True, capture_output=True)
    name = f"backy-{repository.records.history()[0].id}"
    with disk.opened() as image:
        image.create_snap(name)
    change(disk, chance)
    stream = export(disk, "export-diff", "--from-snap", name, "", "-")
    subprocess.run(program, input=stream, check=True, capture_output=True)

    assert newest() == digest(disk)
    assert repository.records.history()[-1].parent == repository.records.history()[0].id
