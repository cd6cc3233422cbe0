"""Measures what a journal of many lines costs: the lines of an act, a look of the scheduler, and an audit.

`python -m benchmarks.journal` makes a repository that has few revisions and had very many.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click

from backy.answers.audit import audit
from backy.repository.config import JobConfig, SourceSection
from backy.repository.journal import Fact, Journal, digest
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.repository.sealed import FORMAT
from backy.scheduler.jobs.repositories import summarize

RECORD, STATE = b"a record", b"a state"
FACT = Fact(digest(RECORD), digest(STATE))
PRESENT = 100
"""Number of revisions that are there."""
ACTS = 100
"""Number of acts that are measured."""


@click.command()
@click.option(
    "--lines", default=70_000, show_default=True, help="How many lines: 8 a day are 24 years of daily backups."
)
@click.option("--work", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Folder on the disk.")
def command(lines: int, work: Path | None) -> None:
    """Measure a long journal."""
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-", dir=work) as folder:
        source = SourceSection({"type": "file", "filename": "/nowhere"})
        repository = Repository.initialize(Path(folder) / "vm", JobConfig(format=FORMAT, source=source))
        fill(repository, lines)
        acts = [seconds(lambda: act(repository.records.journal)) for _ in range(ACTS)]
        now = utc_now()
        first = summarize(repository.directory, now, now)
        looks = [seconds(lambda: summarize(repository.directory, now, now, earlier=first.audited)) for _ in range(5)]
        audits = [seconds(lambda: audit(repository)) for _ in range(5)]
    click.echo(f"| a journal of {lines} lines | wanted | found |\n|---|---|---|")
    click.echo(f"| the lines of a backup, until they are on the disk | under 15 ms | {median(acts) * 1000:.1f} ms |")
    click.echo(f"| a look of the scheduler | | {median(looks) * 1000:.0f} ms |")
    click.echo(f"| an audit | | {median(audits) * 1000:.0f} ms |")


def fill(repository: Repository, lines: int) -> None:
    """Let revisions come and go, and some stay."""
    going = {f"revision-{number:06}": FACT for number in range((lines - 2 * PRESENT) // 2)}
    staying = {f"revision-{number:06}-stays": FACT for number in range(PRESENT)}
    for revision_id in staying:
        (repository.directory / f"{revision_id}.state").write_bytes(STATE)
        (repository.directory / f"{revision_id}.rev").write_bytes(RECORD)
    journal = repository.records.journal
    journal.declare("backup", None, {**going, **staying})
    journal.declare("purge", None, dict.fromkeys(going, Fact()))


def act(journal: Journal) -> None:
    """Write down what a backup writes down."""
    with journal.act("backup", "revision-999999", Fact()):
        pass


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    command()
