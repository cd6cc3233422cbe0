"""Measures commands whose time grows with the number of revisions or the size of images, without their data."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from backy.api import Statistics, Verification, identify
from backy.image.stored import ChunkMap
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Record, Revision, State
from backy.repository.sealed import FORMAT
from benchmarks.measure import Command, measure

REVISIONS = 1000
IMAGE = 10 * 2**30
LARGE = 10 * 2**40
# A program of its own, which takes the time itself: starting Python would take most of it.
_OPEN = """
import sys, time
from pathlib import Path
from backy.repository.repository import Repository
repository = Repository.open(Path(sys.argv[1]))
revision = repository.records.select("last")
repository.storage()
start = time.perf_counter()
with repository.image(revision) as image:
    print(time.perf_counter() - start)
"""


def report(folder: Path) -> str:
    """Make repositories of records and maps only, and measure `status` and opening a revision; return table rows."""
    # Records and maps need no data of images, which would take hours to make.
    many = _repository(folder / "many")
    _fill(many, REVISIONS, IMAGE)
    status = median(measure(_status(many), folder).wall for _ in range(5))
    large = _repository(folder / "large")
    _fill(large, 1, LARGE)
    return "\n".join(
        [
            f"| `status` with {REVISIONS} revisions of {IMAGE // 2**30} GiB | under 0.5 s | {status:.2f} s |",
            f"| opening a revision of {LARGE // 2**40} TiB | under 50 ms | {_opening(large) * 1000:.0f} ms |",
        ]
    )


def _repository(directory: Path) -> Repository:
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": "/nowhere"}))
    return Repository.initialize(directory, config)


def _fill(repository: Repository, revisions: int, size: int) -> None:
    """Write records and maps of revisions. One chunk in a hundred differs from one revision to the next."""
    # By the functions of the repository itself, so that the files are always as a backup would write them.
    chunks = ChunkMap(size)
    for number in range(revisions):
        for index in range(len(chunks)) if not number else range(number % 100, len(chunks), 100):
            chunks[index] = identify(b"%d %d" % (number, index))
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
        record = Record(
            id=f"revision{number:04}",
            seq=number + 1,
            timestamp=time,
            trusted_time=time,
            birth_tags=("daily",),
            parent=f"revision{number - 1:04}" if number else None,
            size=size,
            map_digest=repository.records.write_map(f"revision{number:04}", chunks),
            statistics=Statistics(duration=1.0, bytes_read=size, bytes_written=size // 100, bytes_stored=size // 300),
            verifications=(Verification("none", 0, len(chunks)),),
        )
        repository.records.add(Revision.of(record, State(id=record.id, tags=record.birth_tags, storage="chunked")))


def _status(repository: Repository) -> Command:
    return Command([str(Path(sys.executable).with_name("backy")), "-b", str(repository.directory), "status"])


def _opening(repository: Repository) -> float:
    """Return the median of the seconds that opening takes."""
    # In new processes, because a second opening in one process is faster.
    arguments = [sys.executable, "-c", _OPEN, str(repository.directory)]
    return median(float(subprocess.run(arguments, check=True, capture_output=True).stdout) for _ in range(5))
