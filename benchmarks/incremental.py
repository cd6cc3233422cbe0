"""Measures incremental backups of image files on btrfs and XFS: do they cost what changed, or what the image has?

`python -m benchmarks.incremental` needs root, because it mounts file systems. It changes the same 4 MiB in a small and
in a large image, of which clones are kept, and backs both up. Then it fragments both and does the same again.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click

from backy.extents import mapped
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from benchmarks.measure import Command, Measurement, measure, run

PAGE = 4096
CHANGED = 4 * 2**20
PIECES = (1, 64)
"""Numbers of places, each in a chunk of its own, over which the changed bytes are spread."""
KINDS = {"btrfs": ["mkfs.btrfs", "-q"], "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"]}
_CONTENT = Path("/usr")


class Subject:
    """An image of `size` MiB in a folder, and its repository in another one."""

    def __init__(self, folder: Path, directory: Path, size: int) -> None:
        self.size = size
        self._image = folder / f"{size}.img"
        source = {"type": "file", "filename": str(self._image), "freeze": "keep"}
        if (directory / "config").exists():
            self._repository = Repository.open(directory)
        else:
            self._repository = Repository.initialize(directory, JobConfig(format=FORMAT, source=SourceSection(source)))
        backy = Path(sys.executable).with_name("backy")
        self._backup = Command([str(backy), "-b", str(directory), "backup", "benchmark"])

    def prepare(self) -> None:
        """Fill the image with content of programs, no two chunks alike, and back it up."""
        # With `--work` this was done in an earlier call.
        if self._repository.records.history():
            return
        block = _content()
        with self._image.open("wb") as stream:
            for number in range(self.size * 2**20 // len(block)):
                for place in range(0, len(block), 2**20):
                    block[place : place + 8] = (number * len(block) + place).to_bytes(8, "little")
                stream.write(block)
            os.fsync(stream.fileno())
        run(self._backup)

    def fragment(self, extents: int) -> None:
        """Write single pages all over the image until it has about `extents` extents, and back it up."""
        # A clone shares all blocks, so every page that is written afterwards gets a new place and splits an extent.
        if self.extents() >= extents * 0.9:
            return
        chance = random.Random(self.size)
        places = [number * self.size * 2**20 // (extents // 2) // PAGE * PAGE for number in range(extents // 2)]
        chance.shuffle(places)
        with self._image.open("r+b") as stream:
            for place in places:
                os.pwrite(stream.fileno(), chance.randbytes(PAGE), place)
            os.fsync(stream.fileno())
        run(self._backup)

    def extents(self) -> int:
        """Count the extents of the image."""
        with self._image.open("rb") as stream:
            return sum(1 for _ in mapped(stream.fileno()))

    def change(self, pieces: int, within: int, seed: int) -> None:
        """Change 4 MiB in the first `within` MiB, at the same offsets for every size of the image."""
        chance = random.Random(seed)
        with self._image.open("r+b") as stream:
            for piece in range(pieces):
                # A few pages off, so that not every run writes to the same page of a chunk.
                stream.seek(piece * within * 2**20 // pieces + chance.randrange(8) * PAGE)
                stream.write(chance.randbytes(CHANGED // pieces))
            os.fsync(stream.fileno())

    def back_up(self) -> Measurement:
        """Make a revision and return its cost."""
        return measure(self._backup, self._repository.directory)

    def note(self) -> str:
        """Return a text on the bytes that the newest backup read and verified."""
        revision = self._repository.records.history()[-1]
        read = revision.statistics.bytes_read if revision.statistics else 0
        return f"{self.size} MiB: {read / 2**20:.0f} MiB read, {revision.verification}"


def _content() -> bytearray:
    """Return 64 MiB of libraries below /usr."""
    # They compress about as well as other content of machines.
    found = bytearray()
    for path in sorted(_CONTENT.rglob("*.so*")):
        if path.is_file() and not path.is_symlink():
            found += path.read_bytes()
        if len(found) >= 2**26:
            break
    return (found * (2**26 // len(found) + 1))[: 2**26]


@contextmanager
def mounted(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """Mount the file system in the file `device` below `folder`. Make it first if it is missing."""
    device, root = folder / "device", folder / "root"
    if not device.exists():
        root.mkdir(parents=True)
        with device.open("wb") as stream:
            stream.truncate(size)
        subprocess.run([*KINDS[kind], device], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", device, root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


@click.command()
@click.option("--sizes", default="1024,16384", show_default=True, help="Sizes of the images in MiB, from 64.")
@click.option("--extents", default=60000, show_default=True, help="How many each has once it is fragmented; 0: never.")
@click.option("--runs", default=5, show_default=True, help="Rounds; medians are shown. 0 prepares all for later.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="File systems.")
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), help="Folder that keeps file systems for next time."
)
def main(sizes: str, extents: int, runs: int, kinds: str, work: Path | None) -> None:
    """Measure incremental backups of image files of which a clone is kept."""
    wanted = [int(size) for size in sizes.split(",")]
    click.echo(
        "| file system | 4 MiB changed in | extents | " + " | ".join(f"{size} MiB" for size in wanted) + " | ratio |"
    )
    click.echo("|---" * (len(wanted) + 4) + "|")
    # A file system that can not be unmounted must not hide the error that caused it.
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-", ignore_cleanup_errors=True) as temporary:
        for kind in kinds.split(","):
            folder = (work or Path(temporary)).absolute() / kind
            # Twice the images: when all their blocks have changed, the clones keep as many old ones.
            with mounted(kind, folder, 2 * sum(wanted) * 2**20 + 2**30) as root:
                subjects = [Subject(root, folder / "repositories" / str(size), size) for size in wanted]
                for subject in subjects:
                    subject.prepare()
                _rows(kind, subjects, runs)
                if extents:
                    for subject in subjects:
                        subject.fragment(extents)
                    _rows(kind, subjects, runs)


def _rows(kind: str, subjects: list[Subject], runs: int) -> None:
    """Change and back up all images in turns, and print the medians."""
    for pieces in PIECES if runs else []:
        times: dict[int, list[float]] = {subject.size: [] for subject in subjects}
        for number in range(runs):
            # Every other round is reversed, so that none always comes first.
            for subject in subjects if number % 2 else subjects[::-1]:
                subject.change(pieces, min(times), 1000 * pieces + number)
                times[subject.size].append(subject.back_up().wall)
        seconds = [median(times[subject.size]) for subject in subjects]
        cells = [f"{one:.2f} s" for one in seconds]
        extents = " / ".join(f"{subject.extents():,}" for subject in subjects)
        places = f"{pieces} places" if pieces > 1 else "one place"
        click.echo(f"| {' | '.join([kind, places, extents, *cells])} | {seconds[-1] / seconds[0]:.2f} |")
        for subject in subjects:
            click.echo(f"{kind}, {places}, {subject.note()}", err=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.incremental")
