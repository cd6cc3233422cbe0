"""Measures commands on a repository with very many revisions.

`python -m benchmarks.history` makes one real revision, gives it a long past, and runs commands as an operator does.
"""

from __future__ import annotations

import random
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import click
import msgspec

from backy.api import identify
from backy.backup.backup import Backup
from backy.config import Duration
from backy.repository import sealed
from backy.repository.config import JobConfig, ScheduledTag, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from benchmarks.measure import Command, measure

BACKY = Path(sys.executable).with_name("backy")
IMAGE = 64 * 2**20
PAGE = 4096
INTERVAL = timedelta(hours=1)
GOALS = {"backup hourly": "under 5 s", "expire": "", "purge": "under 5 s", "status": "", "forget -r 1": ""}
"""What is measured, in this order, and the goals."""


@click.command()
@click.option("--revisions", default=100_000, show_default=True, help="How many revisions.")
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), help="Folder for the repository, which stays there."
)
def command(revisions: int, work: Path | None) -> None:
    """Measure commands on a repository with very many revisions."""
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-") as temporary:
        folder = work or Path(temporary)
        folder.mkdir(exist_ok=True)
        image = folder / "disk.img"
        directory = folder / "vm"
        if not directory.exists():
            image.write_bytes(random.Random(1).randbytes(IMAGE))  # no secret
            make(directory, image, revisions)
        click.echo(f"| {revisions} revisions | wanted | found | of it processor time |\n|---|---|---|---|")
        for words, goal in GOALS.items():
            with image.open("r+b") as stream:
                stream.write(random.randbytes(PAGE))  # no secret
            found = measure(Command([str(BACKY), "-b", str(directory), *words.split()]), folder)
            click.echo(f"| `{words}` | {goal} | {found.wall:.1f} s | {found.cpu:.1f} s |")


def make(directory: Path, image: Path, revisions: int) -> None:
    """Make a repository with one revision of `image` and a long past before it."""
    schedule = {"hourly": ScheduledTag(Duration(hours=1), revisions)}
    source = SourceSection({"type": "file", "filename": str(image)})
    repository = Repository.initialize(directory, JobConfig(format=FORMAT, source=source, schedule=schedule))
    newest = Backup(repository, ("hourly",)).run()
    chunks = repository.records.read_map(newest)
    repository.remove(newest.id)
    real = [chunks[index] for index in range(len(chunks))]
    for number in range(revisions):
        revision_id = f"revision-{number:06}"
        # One chunk differs from one revision to the next. The newest revision is whole.
        index = number % len(chunks)
        chunks[index] = identify(b"%d" % number) if number < revisions - len(chunks) else real[index]
        time = newest.timestamp - (revisions - number) * INTERVAL
        # Not by `Records`, which brings each file to the disk: that would take hours.
        repository.records.map_path(revision_id).write_bytes(chunks.encode())
        past = {"id": revision_id, "seq": number + 1, "timestamp": time, "trusted_time": time, "boot": None}
        record = msgspec.structs.replace(newest.record, **past, map_digest=chunks.digest)
        state = msgspec.structs.replace(newest.state, id=revision_id)
        repository.records.record_path(revision_id).write_bytes(sealed.encode(record))
        repository.records.state_path(revision_id).write_bytes(sealed.encode(state))
    repository.link_last(Revision.of(record, state))


if __name__ == "__main__":
    command()
