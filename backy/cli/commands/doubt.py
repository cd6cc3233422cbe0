"""Whether what is stored is right: `backy verify`, `scrub`, `distrust`, `accept` and `reports`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.options import DATE, dry_run_option, rate_option, read_by, revision_of
from backy.cli.output import answer, answered, echo, kept, width
from backy.cli.progress import steps
from backy.cli.revisions import answer_with, described
from backy.cli.usage import Group
from backy.config import parse_duration
from backy.errors import DamageError, RepositoryBusyError, RevisionNotFoundError
from backy.repository.revision import Revision, utc_now
from backy.text.phrases import counted, local_time, local_zone, short_ids

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.scrubbing.scrub import Scrubbed


@click.command("verify")
@revision_of("Verify this revision only.")
@each_disk
def verify(directory: Path, specification: str | None) -> None:
    """Read all chunks of the distrusted revisions, or of one revision, and compare each with its id.

    A sound revision becomes 'verified'; a damaged one stays or becomes 'distrusted'. One of which the source hid a
    change stays 'wrong', sound as it may be.
    """
    from backy.scrubbing.scrub import verify_all

    repository = repository_of(directory)
    judged: list[Revision] = []
    try:
        with steps() as show:
            found = verify_all(repository, specification, partial(_tell, judged), steps=show)
    finally:
        # also if some are damaged, of which the error tells
        in_json = answered({"revisions": [*map(described, judged)]})
    # Without a word one could believe that all revisions had been read.
    if not found and not in_json:
        echo("No revision is distrusted; 'backy verify -r SPEC' reads one all the same")


def _tell(judged: list[Revision], one: Revision | str) -> None:
    if isinstance(one, str):
        # No verdict: another command removed the revision before it was read.
        click.echo(one, err=True)
        return
    judged.append(one)
    if not kept("json", default=False):
        echo(f"{one.id} {one.trust}")


@click.command("scrub")
@click.argument("mode", type=click.Choice(["light", "deep"]))
@revision_of("Look at this revision only.")
@rate_option
@click.option("--max-duration", "longest", metavar="TIME", callback=read_by(parse_duration), help="Such as 2h.")
@click.option("--round", nargs=2, type=(str, float), hidden=True, help="Name and end, in seconds; for the scheduler.")
@click.option("--repair-from", metavar="SOURCE", help="Get damaged chunks from a copy, as 'backy pull' names it.")
@each_disk
def scrub(directory: Path, mode: str, specification: str | None, repair_from: str | None, **limits: Any) -> None:  # noqa: ANN401  # a rate, times and a name
    """Check the stored data for damage, without the source.

    'light' checks that every file is there and has a plausible size; 'deep' reads every chunk and compares it with its
    id. A deep scrub that runs out of time continues there the next time. Revisions that refer to damaged chunks become
    distrusted.
    """
    from backy.copies.copies import heal
    from backy.scrubbing.scrub import Scrub

    repository = repository_of(directory)
    only = None if specification is None else repository.records.select(specification)
    name, end = limits.pop("round") or ("", 0)
    if end:
        limits["longest"] = timedelta(seconds=max(end - utc_now().timestamp(), 0))
    with steps() as show:
        result = Scrub(repository, mode == "deep", utc_now, only, round=name, steps=show, **limits).run()
        if repair_from is not None:
            heal(repository, repair_from, show)
    damaged = counted(len(result.damaged), "is damaged", "are damaged")
    rest = "" if result.complete else f" of {result.total}, then the time was over"
    answer({"mode": mode, **result.figures}, f"Scrubbed {counted(result.chunks, 'chunk')}{rest}: {damaged}")
    # Damage only: to run out of time is no failure, and the next scrub goes on there.
    if wrong := list(_damage(result, repaired=repair_from is not None)):
        raise DamageError("; ".join(wrong))
    if name and not result.complete:
        raise RepositoryBusyError(f"{result.chunks}{rest}: the next scrub goes on there")


def _damage(result: Scrubbed, *, repaired: bool) -> Iterator[str]:
    """Yield the parts of the error; chunks that were `repaired` are none any more."""
    yield from result.problems
    if repaired:
        return
    if result.damaged:
        # One is enough to begin with; thousands may be on a bad disk.
        yield f"{counted(len(result.damaged), 'chunk is', 'chunks are')} damaged, the first is {result.damaged[0]}"
    if result.distrusted:
        yield f"distrusted for it: {', '.join(result.distrusted)}; 'backy reports list' has the evidence"


@click.command("distrust")
@revision_of("Distrust this revision only.")
@click.option("-f", "--from", "first", type=DATE, metavar="DATE", help="Distrust those of this day (UTC) and later.")
@click.option("-u", "--until", "last", type=DATE, metavar="DATE", help="Distrust those of this day (UTC) and earlier.")
@click.option("--all", "everything", is_flag=True, help="Distrust all revisions.")
@dry_run_option
@each_disk
def distrust(
    directory: Path, specification: str | None, everything: bool, dry_run: bool, **days: datetime | None
) -> None:
    """Distrust one revision, those of some days, or all of them.

    While a revision is distrusted, the next backup is a full one and stores everything anew; after each backup one
    distrusted revision is verified.
    """
    from backy.integrity.damage import distrust

    chosen = {name: day.date() for name, day in days.items() if day}
    if specification is not None and chosen:
        raise click.UsageError("--revision does not go with --from and --until")
    # A full backup of everything is nothing that a forgotten word should cost.
    if everything == bool(specification is not None or chosen):
        raise click.UsageError("name revisions by --revision, --from or --until, or all of them by --all alone")
    distrusted = distrust(repository_of(directory), specification, **chosen, dry_run=dry_run)
    verb = "Would distrust" if dry_run else "Distrusted"
    answer_with(distrusted, f"{verb} {counted(len(distrusted), 'revision')}")


@click.command("accept")
@revision_of("The revision that shrank. Default: all.")
@each_disk
def accept(directory: Path, specification: str | None) -> None:
    """Say that an image was meant to shrink, or to lose all data.

    The revision before has the tag 'pinned:shrunk' since then, which keeps it as long as the schedule keeps anything.
    Without the tag the revision expires by the schedule.
    """
    from backy.retention.tags import accept

    released = accept(repository_of(directory), specification)
    if not released and specification is not None:
        raise RevisionNotFoundError(f"no revision is held because of '{specification}'; 'backy status' shows the tags")
    texts = [f"{revision.id} {','.join(revision.tags)}" for revision in released] or ["No revision is held"]
    answer_with(released, *texts)


@click.group("reports", cls=Group)
def reports() -> None:
    """List, show and delete the reports of damaged chunks and failed verifications."""


@reports.command("list")
@each_disk
def list_(directory: Path) -> None:
    """List the reports."""
    from backy.integrity import quarantine
    from backy.terminal.table import CAUSE, table

    found = list(quarantine.findings(repository_of(directory).directory))
    if answered({"reports": found}):
        return
    ids = short_ids(finding.name for finding in found)
    if found:
        date = f"Date ({local_zone(finding.timestamp for finding in found)})"
        shown = {
            date: lambda one: local_time(one.timestamp),
            "Report": lambda one: ids[one.name],
            CAUSE: lambda one: f"{one.cause}{', repaired' if one.repaired else ''}",
        }
        echo(table(found, shown, width=width()), lines=True)
    # Last, where it is seen below a long list.
    echo(counted(len(found), "report"))


@reports.command("show")
@click.argument("name", metavar="REPORT")
def show(directory: Path, name: str) -> None:
    """Show one report and the path of its evidence. The beginning of its name is enough."""
    import msgspec

    from backy.integrity import quarantine

    repository = repository_of(directory).directory
    finding = quarantine.find(repository, name)
    if answered(finding):
        return
    # All fields, as they are in the file: new ones are shown without a change here.
    for key, value in msgspec.to_builtins(finding).items():
        echo(f"{key}: {'-' if value is None else value}")
    echo(f"evidence: {repository / quarantine.FOLDER / finding.name}")


@reports.command("delete")
@click.argument("names", metavar="REPORT", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Delete all reports.")
def delete(directory: Path, names: tuple[str, ...], everything: bool) -> None:
    """Delete reports and their evidence; this changes no revision."""
    from backy.integrity import quarantine

    # Neither: nothing is deleted by accident. Both: one of them is a mistake.
    if bool(names) == everything:
        raise click.UsageError("name the reports to delete, or give --all")
    deleted = quarantine.delete(repository_of(directory).directory, None if everything else names)
    answer({"reports": deleted}, f"Deleted {counted(len(deleted), 'report')}")
