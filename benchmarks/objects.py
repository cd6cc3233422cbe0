"""Measures the storage `s3` beside its library alone, on a gateway that is made for it: `python -m benchmarks.objects`.

The OSD keeps its objects in memory, and image, repository and restored image lie in a folder of memory as well.
"""

from __future__ import annotations

import filecmp
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import boto3
import click
import obstore
from botocore.config import Config
from obstore.store import S3Store

from benchmarks.ceph import seconds
from benchmarks.images import build
from tests.cluster import Cluster
from tests.cluster.gateway import Gateway

MIB = 2**20
PIECE = 16 * MIB
"""Bytes of an object of the library alone: as many as a pack has."""
AT_ONCE = 4
BUCKET = "benchmark"


@click.command()
@click.option("--size", default=512, show_default=True, help="MiB of the images.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--work", default="/dev/shm", show_default=True, help="The folder for images and repositories.")  # noqa: S108  # it is memory
def main(size: int, runs: int, work: str) -> None:
    """Measure full backups and restores of the storage `s3`."""
    with (
        Cluster.running() as cluster,
        Gateway.running(cluster) as gateway,
        tempfile.TemporaryDirectory(dir=work) as folder,
    ):
        click.echo("| Goal | Wanted | Found |\n|---|---|---|")
        for kind, make in (("files", build), ("nothing that can be compressed", fill)):
            image = Path(folder) / "image"
            make(image, size * MIB)
            bench = Bench(gateway, Path(folder), image)
            rounds = [bench.round(number) for number in range(runs)]
            image.unlink()
            for goal in ("full", "restore"):
                ours, theirs = (median(one[goal, who] for one in rounds) for who in ("backy", "obstore"))
                found = f"{theirs / ours:.2f} ({size / ours:.0f} and {size / theirs:.0f} MiB/s)"
                click.echo(f"| image of {kind}, {goal}: rate / that of obstore alone | at least 0.7 | {found} |")
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        click.echo(f"| memory of any command, MiB | at most 200 | {most} |")


def fill(image: Path, size: int) -> None:
    """Make an image of bytes that no tool can compress."""
    with image.open("wb") as stream:
        for number in range(size // MIB):
            stream.write(random.Random(number).randbytes(MIB))


class Bench:
    """Stores an image, and reads it back."""

    def __init__(self, gateway: Gateway, folder: Path, image: Path) -> None:
        self._gateway = gateway
        self._folder = folder
        self._image = image
        os.environ.update({"AWS_ACCESS_KEY_ID": gateway.access_key, "AWS_SECRET_ACCESS_KEY": gateway.secret_key})
        style = Config(s3={"addressing_style": "path"}, region_name="us-east-1")
        boto3.client("s3", endpoint_url=gateway.endpoint, config=style).create_bucket(Bucket=BUCKET)

    def round(self, number: int) -> dict[tuple[str, str], float]:
        """Return the seconds of each, measured in turns, so that other work on the machine slows both alike."""
        place = {"endpoint": self._gateway.endpoint, "region": "us-east-1"}
        store = S3Store(BUCKET, prefix=f"alone-{number}", config=place, client_options={"allow_http": True})
        directory, restored = self._folder / f"vm-{number}", self._folder / "restored"
        keys = {"endpoint": self._gateway.endpoint, "http": "true", "unencrypted": "true"}
        options = [word for key, text in keys.items() for word in ("-o", f"storage.{key}={text}")]
        self._backy(directory, "init", "--storage", f"s3:{BUCKET}/vm-{number}", *options, "-o", "verifier.type=none")
        found = {
            ("full", "obstore"): seconds(lambda: self._put(store)),
            ("full", "backy"): seconds(lambda: self._backy(directory, "backup", "daily")),
            ("restore", "obstore"): seconds(lambda: self._get(store, restored)),
        }
        restored.unlink()
        found["restore", "backy"] = seconds(lambda: self._backy(directory, "restore", restored))
        if not filecmp.cmp(restored, self._image, shallow=False):
            raise click.ClickException("the restored image is another one")
        restored.unlink()
        shutil.rmtree(directory)
        # the OSD has all of it in memory
        everything = S3Store(BUCKET, config=place, client_options={"allow_http": True})
        for page in obstore.list(everything):
            obstore.delete(everything, [one["path"] for one in page])
        return found

    def _backy(self, directory: Path, *words: object) -> None:
        source = ["file", self._image] if words[0] == "init" else []
        command = [Path(sys.executable).with_name("backy"), "-b", directory, *words, *source]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _put(self, store: S3Store) -> None:
        def put(start: int) -> None:
            with self._image.open("rb") as stream:
                obstore.put(store, f"{start}", os.pread(stream.fileno(), PIECE, start), use_multipart=False)

        self._each(put)

    def _get(self, store: S3Store, target: Path) -> None:
        def get(start: int) -> None:
            os.pwrite(stream.fileno(), obstore.get(store, f"{start}").bytes(), start)

        with target.open("wb") as stream:
            self._each(get)

    def _each(self, act: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(act, range(0, self._image.stat().st_size, PIECE)))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.objects")
