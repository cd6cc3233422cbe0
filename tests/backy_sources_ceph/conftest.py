from __future__ import annotations

import hashlib
import itertools
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backy.backup.backup import Backup
from backy.repository.config import JobConfig, SourceSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from tests.cluster import Cluster

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def durable_ceph(ceph: Cluster) -> Iterator[Cluster]:
    """A second cluster, whose OSD keeps everything on the disk: it can be killed and started again."""
    with Cluster.running("bluestore") as cluster:
        yield cluster


class Disk:
    """An image in a real cluster, in the namespace that `ioctx` has."""

    def __init__(self, cluster: Cluster, pool: str, ioctx: Any, name: str) -> None:
        self.cluster = cluster
        self.pool = pool
        self.ioctx = ioctx
        self.name = name

    @property
    def config(self) -> dict[str, Any]:
        """The section `source` of a job that backs it up."""
        return {
            "type": "ceph-rbd",
            "pool": self.pool,
            "namespace": self.ioctx.get_namespace(),
            "image": self.name,
            "conf": str(self.cluster.configuration),
        }

    @property
    def specification(self) -> str:
        """What `rbd` calls it."""
        return "/".join(filter(None, (self.pool, self.ioctx.get_namespace(), self.name)))

    def opened(self, snapshot: str | None = None) -> Any:
        """Open it as its virtual machine does: a context that gives an `rbd.Image`."""
        import rbd

        return rbd.Image(self.ioctx, self.name, snapshot=snapshot)

    @contextmanager
    def reconnected(self) -> Iterator[Disk]:
        """Connect anew: whoever knew where a daemon was before it died looks for it much later."""
        with self.cluster.connected() as connection, connection.open_ioctx(self.pool) as ioctx:
            yield Disk(self.cluster, self.pool, ioctx, self.name)

    def write(self, offset: int, data: bytes) -> None:
        with self.opened() as image:
            image.write(data, offset)

    def snapshots(self) -> list[str]:
        with self.opened() as image:
            return [snapshot["name"] for snapshot in image.list_snaps()]

    def metadata(self) -> dict[str, str]:
        with self.opened() as image:
            return dict(image.metadata_list())

    def rbd(self, *words: str) -> bytes:
        """Run the program `rbd`."""
        command = ["rbd", "-c", str(self.cluster.configuration), *words]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def exported(self, revision: Revision) -> str:
        """Return the SHA-256 of what `rbd export` gives for a revision's snapshot."""
        exported = self.rbd("export", "--no-progress", f"{self.specification}@backy-{revision.id}", "-")
        return hashlib.sha256(exported).hexdigest()


@contextmanager
def disks_in(cluster: Cluster, pool: str) -> Iterator[Callable[..., Disk]]:
    import rbd

    with cluster.connected() as connection, connection.open_ioctx(pool) as ioctx:

        def make(size: int, namespace: str = "", **options: Any) -> Disk:
            name = f"disk{next(NUMBERS)}"
            ioctx.set_namespace(namespace)
            rbd.RBD().create(ioctx, name, size, old_format=False, **options)
            return Disk(cluster, pool, ioctx, name)

        yield make


@pytest.fixture
def disks(ceph: Cluster, ceph_pool: str) -> Iterator[Callable[..., Disk]]:
    """Make images as `disks(size, features=..., ...)` in a pool of the test's own, all in one namespace."""
    with disks_in(ceph, ceph_pool) as make:
        yield make


@pytest.fixture
def durable_disks(durable_ceph: Cluster) -> Iterator[Callable[..., Disk]]:
    """Make images in the cluster whose daemons can be killed, as `durable_disks(size)`; they are left running."""
    pool = f"durable-{next(NUMBERS)}"
    durable_ceph.create_pool(pool)
    with disks_in(durable_ceph, pool) as make:
        yield make
    durable_ceph.remove_pool(pool)


@pytest.fixture
def repositories(tmp_path: Path) -> Callable[..., Repository]:
    """Make repositories for disks, as `repositories(disk, key=value)`: keys of the source.

    Verification would repair what changes leave out; tests compare all by themselves.
    """

    def make(disk: Disk, verifier: str | None = "none", **keys: Any) -> Repository:
        folder = tmp_path / f"vm{next(NUMBERS)}"
        chosen = VerifierSections.from_plain(verifier) if verifier else None
        source = SourceSection({**disk.config, **keys})
        return Repository.initialize(folder, JobConfig(format=FORMAT, source=source, verifier=chosen))

    return make


@pytest.fixture
def backup() -> Callable[..., Revision]:
    """Back up a repository and return the revision."""
    return lambda repository: Backup(repository, ("test",)).run()


@pytest.fixture
def stored() -> Callable[..., str]:
    """Tell the SHA-256 of a revision's image."""

    def read(repository: Repository, revision: Revision) -> str:
        digest = hashlib.sha256()
        with repository.image(revision) as image:
            for offset in range(0, image.size, 2**22):
                digest.update(image.pread(offset, min(2**22, image.size - offset)))
        return digest.hexdigest()

    return read


def encoded(*records: tuple, version: int = 1) -> bytes:
    """Write a diff: ("f", snapshot), ("t", snapshot), ("s", size), ("w", offset, data) and ("z", offset, length)."""
    stream = b"rbd diff v%d\n" % version
    for tag, *values in records:
        if tag in {"f", "t"}:
            body = struct.pack("<I", len(values[0].encode())) + values[0].encode()
        elif tag == "w":
            body = struct.pack("<QQ", values[0], len(values[1])) + values[1]
        else:
            body = struct.pack(f"<{len(values)}Q", *values)
        stream += tag.encode() + (struct.pack("<Q", len(body)) if version > 1 else b"") + body
    return stream + b"e"


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Write a stream, as `encode(record, ..., version=1)`."""
    return encoded
