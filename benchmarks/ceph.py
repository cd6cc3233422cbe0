"""Measures the source `ceph-rbd` in a cluster that is made for it: `python -m benchmarks.ceph`.

The OSD keeps its objects on the disk. All programs read them from the page cache.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

import click

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.image.spans import spans
from backy.repository.config import JobConfig, SourceSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from backy.repository.storages import threads_for
from backy.system.parallel import in_parallel
from backy_sources_ceph.connection import CephConfig, opened_pool
from backy_sources_ceph.snapshot import opened_snapshot
from tests.cluster import Cluster

MIB, GIB = 2**20, 2**30
POOL = "benchmark"
CHANGED = 40 * MIB
"""Bytes of an image that change, each MiB in an object of its own."""


@click.command()
@click.option("--whole", default=2048, show_default=True, help="MiB of the image that is read as a whole.")
@click.option("--partly", default=10240, show_default=True, help="MiB of the image of which little changes.")
@click.option("--sparse", default=51200, show_default=True, help="MiB of the sparse image; the other one has 1 GiB.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Rounds; medians are shown.")
def main(whole: int, partly: int, sparse: int, runs: int) -> None:
    """Measure backups of RBD images."""
    with Cluster.running("bluestore") as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.create_pool(POOL)
        bench = Bench(cluster, Path(folder))
        click.echo("| Goal | Wanted | Found |\n|---|---|---|")
        click.echo(bench.reading(whole * MIB, runs))
        click.echo(bench.changes(partly * MIB))
        click.echo(bench.sizes(sparse * MIB, runs))


class Bench:
    """Makes images in `cluster` and repositories in `folder`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._chance = random.Random(1)

    def reading(self, size: int, runs: int) -> str:
        """Read a full image by the source and by `rbd export` in turns; return a row of the table."""
        config = self._image("whole", size, size)
        self._rbd("snap", "create", f"{POOL}/whole@frozen")
        ours, theirs = [], []
        # In turns, so that other work on the machine slows both alike.
        for _ in range(runs):
            theirs.append(seconds(lambda: self._rbd("export", f"{POOL}/whole@frozen", "-")))
            ours.append(seconds(lambda: read(config, "frozen")))
        rate, other = (size / MIB / median(walls) for walls in (ours, theirs))
        found = f"{rate / other:.2f} ({rate:.0f} and {other:.0f} MiB/s)"
        return f"| reading: rate of the source / rate of `rbd export` | at least 1.0 | {found} |"

    def changes(self, size: int) -> str:
        """Back up an image with few changes, and count the bytes that the OSD sent; return rows of the table."""
        full = min(size, GIB)
        config = self._image("partly", size, full)
        lines = []
        # The goal is without verification; what a sample adds is shown beside it.
        for verifier in ("none", "sample"):
            repository = self._repository(config, verifier)
            backup(repository)
            changed = self._change("partly", full)
            before = self._given_out()
            backup(repository)
            found = f"{(self._given_out() - before) / changed:.2f}"
            wanted = "at most 1.3" if verifier == "none" else ""
            lines.append(
                f"| {CHANGED // MIB} MiB changed in {size / GIB:g} GiB, verifier {verifier}: "
                f"bytes read / bytes of changed objects | {wanted} | {found} |"
            )
        return "\n".join(lines)

    def sizes(self, size: int, runs: int) -> str:
        """Back up changes of a small and of a large sparse image in turns; return a row of the table."""
        # The same changes should take the same time, whatever the size.
        repositories = {}
        for name, length in (("small", GIB), ("large", size)):
            config = self._image(name, length, 4 * CHANGED)
            repositories[name] = self._repository(config, "none")
            backup(repositories[name])
        walls: dict[str, list[float]] = {name: [] for name in repositories}
        for _ in range(runs):
            for name, repository in repositories.items():
                self._change(name, 4 * CHANGED)
                walls[name].append(seconds(partial(backup, repository)))
        large, small = median(walls["large"]), median(walls["small"])
        return (
            f"| {CHANGED // MIB} MiB changed: time for {size / GIB:g} GiB / time for 1 GiB | 1 "
            f"| {large / small:.2f} ({large:.2f} and {small:.2f} s) |"
        )

    def _image(self, name: str, size: int, full: int) -> CephConfig:
        """Make an image of `size` bytes with random data in the first `full`."""
        self._rbd("create", "--size", f"{size // MIB}M", f"{POOL}/{name}")
        self._write(name, range(0, full, CHUNK_SIZE), CHUNK_SIZE)
        return CephConfig(type="ceph-rbd", pool=POOL, image=name, conf=str(self._cluster.configuration))

    def _change(self, name: str, full: int) -> int:
        """Write one MiB into each of some objects, CHANGED in all; return the bytes of these objects."""
        # A source can know of whole objects only, so these are what a perfect one would read.
        objects = self._chance.sample(range(full // CHUNK_SIZE), CHANGED // MIB)
        self._write(name, (index * CHUNK_SIZE for index in objects), MIB)
        return len(objects) * CHUNK_SIZE

    def _write(self, name: str, places: Iterable[int], length: int) -> None:
        import rbd

        with (
            self._cluster.connected() as connection,
            connection.open_ioctx(POOL) as pool,
            rbd.Image(pool, name) as image,
        ):
            # Random data, which neither the OSD nor backy can make smaller.
            for place in places:
                image.write(self._chance.randbytes(length), place)

    def _repository(self, config: CephConfig, verifier: str) -> Repository:
        source = {"type": config.type, "pool": config.pool, "image": config.image, "conf": config.conf}
        job = JobConfig(format=FORMAT, source=SourceSection(source), verifier=VerifierSections.from_plain(verifier))
        return Repository.initialize(self._folder / f"{config.image}-{verifier}", job)

    def _rbd(self, *words: str) -> None:
        command = ["rbd", "-c", str(self._cluster.configuration), "--no-progress", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _given_out(self) -> int:
        """Return the bytes that the OSD has sent to clients so far."""
        # From the OSD's own counter: nothing that a client or its library reads is missed.
        with self._cluster.connected() as connection:
            words = json.dumps({"prefix": "perf dump", "logger": "osd", "format": "json"})
            _, output, _ = connection.osd_command(0, words, b"")
        given: int = json.loads(output)["osd"]["op_out_bytes"]
        return given


def read(config: CephConfig, name: str) -> None:
    """Connect and read a snapshot as a backup does, without storing it."""
    with opened_pool(config) as pool, opened_snapshot(pool, config, name, None, lambda: None) as snapshot:
        chunks = (index for span in spans(snapshot.extents(), snapshot.size) if span.data for index in range(*span[:2]))
        # As many threads as a backup has.
        for _ in in_parallel(
            lambda index: len(snapshot.pread(index * CHUNK_SIZE, CHUNK_SIZE)), chunks, threads_for(snapshot)
        ):
            pass


def backup(repository: Repository) -> Revision:
    """Make a revision."""
    return Backup(repository, ("benchmark",)).run()


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.ceph")
