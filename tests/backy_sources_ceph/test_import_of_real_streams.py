"""Streams that `rbd` makes, compared by SHA-256 with what `rbd export` gives."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.repository import Repository
from backy_sources_ceph.testing.cluster import Cluster

SIZE = 24 * 2**20


class Image:
    """An image `disk` of the cluster, with four objects of 4 MiB in a stripe or none."""

    def __init__(self, cluster: Cluster, pool: str) -> None:
        self.specification = f"{pool}/disk"
        self._cluster = cluster
        self._pool = pool

    def rbd(self, *words: object, **options: object) -> bytes:
        """Run `rbd` and return what it prints."""
        environment = {**os.environ, "CEPH_CONF": str(self._cluster.configuration)}
        command = ["rbd", *map(str, words)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, **options).stdout  # type: ignore[call-overload]

    @contextmanager
    def opened(self):
        import rbd

        with (
            self._cluster.connected() as connection,
            connection.open_ioctx(self._pool) as pool,
            rbd.Image(pool, "disk") as image,
        ):
            yield image

    def digest(self, snapshot: str = "") -> str:
        return hashlib.sha256(self.rbd("export", f"{self.specification}{snapshot}", "-")).hexdigest()


@pytest.fixture(params=["plain", "striped", "without object map"])
def disk(request: pytest.FixtureRequest, ceph: Cluster, ceph_pool: str) -> Image:
    image = Image(ceph, ceph_pool)
    options = {
        "plain": [],
        "striped": ["--stripe-unit", "65536", "--stripe-count", "4"],
        "without object map": ["--image-feature", "layering"],
    }
    image.rbd("create", image.specification, "--size", f"{SIZE}B", *options[request.param])
    return image


def change(disk: Image, chance: random.Random) -> None:
    """Write, discard, zero and now and then resize, as guests and operators do."""
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


@pytest.fixture
def run(backy: Callable, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run a command on the repository, in the temporary folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: backy("-b", repository.directory, *arguments)


@pytest.fixture
def newest(run: Callable) -> Callable[[], str]:
    """Return the digest of the newest revision's image."""

    def digest() -> str:
        assert run("restore", "restored").code == 0
        return hashlib.sha256(Path("restored").read_bytes()).hexdigest()

    return digest


def test_diffs_from_snapshot_to_snapshot(disk: Image, run: Callable, newest: Callable, rounds: Callable) -> None:
    chance = random.Random(3)
    before: list[str] = []
    for number in range(rounds(5, 60)):
        change(disk, chance)
        name = f"s{number}"
        disk.rbd("snap", "create", f"{disk.specification}@{name}")
        whole = [*before, *(["--whole-object"] if number % 3 == 2 else [])]
        disk.rbd("export-diff", *whole, f"{disk.specification}@{name}", f"{name}.diff")
        done = run("import-diff", f"{name}.diff")

        assert (done.code, done.err) == (0, "")
        assert newest() == disk.digest(f"@{name}")
        before = ["--from-snap", name]


def test_merged_diffs_and_whole_images(disk: Image, run: Callable, newest: Callable) -> None:
    chance = random.Random(4)
    before: list[str] = []
    for name in ("a", "b"):
        change(disk, chance)
        disk.rbd("snap", "create", f"{disk.specification}@{name}")
        disk.rbd("export-diff", *before, f"{disk.specification}@{name}", name)
        before = ["--from-snap", name]
    disk.rbd("merge-diff", "a", "b", "ab")
    change(disk, chance)
    disk.rbd("export", "--export-format", "2", disk.specification, "image")
    assert run("import-diff", "ab").code == 0
    assert newest() == disk.digest("@b")

    assert run("import-diff", "image").code == 0
    assert newest() == disk.digest()


def test_a_diff_since_the_snapshot_of_a_revision_comes_by_a_pipe(disk: Image, backy, repository, newest) -> None:
    chance = random.Random(5)
    change(disk, chance)
    program = ["backy", "-b", repository.directory, "import-diff", "-"]
    subprocess.run(program, input=disk.rbd("export-diff", disk.specification, "-"), check=True, capture_output=True)
    name = f"backy-{repository.history()[0].id}"
    disk.rbd("snap", "create", f"{disk.specification}@{name}")
    change(disk, chance)
    stream = disk.rbd("export-diff", "--from-snap", name, disk.specification, "-")
    subprocess.run(program, input=stream, check=True, capture_output=True)

    assert newest() == disk.digest()
    assert repository.history()[-1].parent == repository.history()[0].id
