"""Measures an idle scheduler with very many jobs: the time to start, and processor time and memory while it waits.

`python -m benchmarks.scheduler` gives every job a repository with a few revisions. No job is due for years.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

import click
import yaml

from backy.api import Statistics, Verification
from backy.image.stored import ChunkMap
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Record, Revision, State, utc_now
from backy.repository.sealed import FORMAT
from backy.scheduler.process.base_directory import ask
from benchmarks.measure import Command, measure

BACKY = Path(sys.executable).with_name("backy")
LONGEST_START = 600.0
"""Seconds to wait until the scheduler is ready."""
TICKS = os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--jobs", default=10_000, show_default=True, help="How many jobs.")
@click.option("--revisions", default=5, show_default=True, help="Revisions of each.")
@click.option(
    "--idle", default=120.0, show_default=True, help="Seconds that it waits while its processor time is counted."
)
def command(jobs: int, revisions: int, idle: float) -> None:
    """Measure an idle scheduler."""
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-") as temporary:
        folder = Path(temporary)
        configuration = prepare(folder, jobs, revisions)
        start = time.monotonic()
        with running(folder, configuration) as process:
            ready = time.monotonic() - start
            wait_for_scan(folder / "srv")
            looked = time.monotonic() - start
            # Counted only now: the first look at all repositories is no idling.
            before = processor_time(process.pid)
            time.sleep(idle)
            share = (processor_time(process.pid) - before) / idle
            checks = [measure(Command([str(BACKY), "check", "-c", str(configuration)]), folder) for _ in range(5)]
            peak = memory(process.pid)
    click.echo(f"| {jobs} jobs, {revisions} revisions each | wanted | found |\n|---|---|---|")
    click.echo(f"| start to ready | under 10 s | {ready:.1f} s |")
    click.echo(f"| start to all repositories looked at | | {looked:.0f} s |")
    click.echo(f"| processor time while idle | under 2 % | {share:.1%} |")
    click.echo(f"| memory at its peak | under 300 MiB | {peak / 2**20:.0f} MiB |")
    click.echo(f"| `backy check` | under 1 s | {median(check.wall for check in checks):.2f} s |")


def prepare(folder: Path, jobs: int, revisions: int) -> Path:
    """Make the repositories and the configuration; return the path of the configuration."""
    base = folder / "srv"
    base.mkdir()
    source = {"type": "file", "filename": str(folder / "disk.img")}
    # With this interval no job is due while the benchmark runs.
    names = [f"vm{number:05}" for number in range(jobs)]
    content = {
        "global": {"base-dir": str(base), "telnet-addrs": ""},
        "schedules": {"default": {"daily": {"interval": "3650d", "keep": revisions}}},
        "jobs": {name: {"schedule": "default", "source": source} for name in names},
    }
    configuration = folder / "backy.conf"
    configuration.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
    model = Repository.initialize(base / names[0], JobConfig(format=FORMAT, source=SourceSection(source)))
    for number in range(revisions):
        revision_id = f"revision{number}"
        time = utc_now() - timedelta(minutes=revisions - number)
        record = Record(
            id=revision_id,
            seq=number + 1,
            timestamp=time,
            trusted_time=time,
            birth_tags=("daily",),
            size=0,
            map_digest=model.records.write_map(revision_id, ChunkMap(0)),
            verifications=(Verification("none", 0, 0),),
            statistics=Statistics(duration=1.0, bytes_read=0, bytes_written=0, bytes_stored=0),
        )
        model.records.add(Revision.of(record, State(id=revision_id, tags=record.birth_tags, storage="chunked")))
    # All repositories share the files of the first by hard links, or making them would take longer than the benchmark.
    for name in names[1:]:
        (base / name).mkdir()
        for path in model.directory.iterdir():
            if path.is_file():
                os.link(path, base / name / path.name)
    return configuration


@contextmanager
def running(folder: Path, configuration: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a scheduler; yield its process when it is ready."""
    # As systemd does: the scheduler tells by this socket that it is ready (sd_notify(3)).
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(LONGEST_START)
        process = subprocess.Popen(
            [BACKY, "-l", folder / "scheduler.log", "scheduler", "-c", configuration],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def wait_for_scan(base: Path) -> None:
    """Wait until the scheduler knows the revisions of every job."""
    # A job has a next time only when its repository was looked at.
    while not all(job["next_time"] for job in ask(base, ["jobs"]).data["jobs"]):
        time.sleep(1)


def processor_time(process: int) -> float:
    """Return the seconds of processor time of a process and of its children that have ended (proc(5))."""
    # The name of the program stands in brackets before the numbers, and may have blanks.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def memory(process: int) -> int:
    """Return the resident bytes of a process at its peak."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    command()
