from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backy.backup.backup import Backup
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from tests.cluster import Cluster

NUMBERS = itertools.count()
SIZE = 48 * 2**20 + 5 * 512


class Live:
    """A repository with one revision, and an image in a pool to restore it to."""

    def __init__(self, folder: Path, cluster: Cluster, pool: str) -> None:
        self.cluster, self.pool, self.name = cluster, pool, f"live{next(NUMBERS)}"
        self.target = f"ceph-rbd:{pool}/{self.name}"
        self.content = bytearray(SIZE)
        generator = random.Random(1)
        # whole chunks, a piece in the middle of one, holes between them, and the short chunk at the end
        for offset, length in [(0, 9 * 2**20), (20 * 2**20 + 5000, 12345), (24 * 2**20, 2**20), (SIZE - 700, 700)]:
            self.content[offset : offset + length] = generator.randbytes(length)
        source = folder / "source.img"
        source.write_bytes(self.content)
        section = SourceSection({"type": "file", "filename": str(source)})
        self.repository = Repository.initialize(folder / "vm", JobConfig(format=FORMAT, source=section))
        self.directory = self.repository.directory
        self.revision = Backup(self.repository, ("daily",)).run()

    @property
    def mark(self) -> Path:
        return self.directory / "in-use" / self.revision.id

    def start(self, *options: str, program: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start `backy restore --live`."""
        code = "from backy.cli.main import main; main()"
        words = ["-b", str(self.directory), "restore", "--live", *options, self.target]
        return subprocess.Popen(
            [*program, sys.executable, "-c", code, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @contextmanager
    def served(self, *options: str, **more: Any) -> Iterator[str]:
        """Let `restore --live --prepare-only` run; yield what it has said when the image could be used."""
        with self.start("--prepare-only", *options, **more) as process:
            said = process.stdout.readline()
            try:
                yield said
            finally:
                process.terminate()
                rest = process.communicate()
                assert process.returncode == 0, rest
                assert " can not be used while nobody serves what it lacks" in rest[1]

    @contextmanager
    def opened(self) -> Iterator[Any]:
        import rbd

        with (
            self.cluster.connected() as connection,
            connection.open_ioctx(self.pool) as pool,
            rbd.Image(pool, self.name) as image,
        ):
            yield image

    def state(self) -> int | None:
        """The state of the migration; None if there is no image, 0 if it is complete, -1 if nobody serves it."""
        import rbd

        with self.cluster.connected() as connection, connection.open_ioctx(self.pool) as pool:
            try:
                return rbd.RBD().migration_status(pool, self.name)["state"]
            except rbd.ImageNotFound:
                return None
            except rbd.InvalidArgument:
                return 0
            except rbd.OSError:
                return -1

    def set_aborting(self) -> None:
        """Leave the image as a removal does that was interrupted."""
        import rbd

        with self.cluster.connected() as connection, connection.open_ioctx(self.pool) as pool:
            header = next(f"rbd_header.{one['id']}" for one in rbd.RBD().list2(pool) if one["name"] == self.name)
            # the state, and an empty text
            pool.execute(
                header, "rbd", "migration_set_state", bytes([rbd.RBD_IMAGE_MIGRATION_STATE_ABORTING, 0, 0, 0, 0])
            )

    def images(self) -> list[str]:
        import rbd

        with self.cluster.connected() as connection, connection.open_ioctx(self.pool) as pool:
            return rbd.RBD().list(pool)

    def read(self) -> bytes:
        """Read all of the image, as a machine would."""
        with self.opened() as image:
            return b"".join(image.read(start, min(2**22, SIZE - start)) for start in range(0, SIZE, 2**22))

    def write(self, offset: int, data: bytes) -> None:
        """Write as a machine would; the image has this from now on."""
        with self.opened() as image:
            image.write(data, offset)
            image.flush()
        self.content[offset : offset + len(data)] = data

    def used(self) -> int:
        """Bytes of the objects that the image has."""
        found = []
        with self.opened() as image:
            image.diff_iterate(0, SIZE, None, lambda _offset, length, exists: found.append(length * exists))
        return sum(found)


@pytest.fixture
def live(tmp_path: Path, ceph: Cluster, ceph_pool: str, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setenv("CEPH_CONF", str(ceph.configuration))
    return Live(tmp_path, ceph, ceph_pool)


@pytest.fixture
def restore(live: Live, backy: Callable) -> Callable:
    """Call `backy restore --live` for the image in the pool."""
    return lambda *options: backy("-b", live.directory, "restore", "--live", *options, live.target)
