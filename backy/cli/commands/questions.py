"""Questions: `backy status`, `diff`, `plan`, `why` and `audit`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from backy.cli.completion import revisions
from backy.cli.disks import each_disk, found_in, repository_of
from backy.cli.options import revision_option, wide_option
from backy.cli.output import answer, answered, chosen, echo
from backy.cli.progress import steps
from backy.cli.revisions import described, print_table
from backy.cli.usage import Group as Commands
from backy.errors import DamageError, TamperingError
from backy.repository.revision import Revision, utc_now
from backy.text.phrases import counted, length_of_time, local_time, size

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.groups.group import Group, Together
    from backy.repository.repository import Repository


class Shown(NamedTuple):
    """What `backy status` shows of a repository or a machine."""

    directories: list[Path]
    """Those with data."""
    revisions: list[Revision]
    """Those in the table."""
    content: dict[str, Any]
    """Members of `--json`; docs/reference/status.md documents them."""
    total: str
    texts: list[str]
    """What is below the table."""
    problems: list[str]
    """What can not be told."""


@click.command("status")
@click.option("--trash", is_flag=True, help="List what was forgotten or has expired, and can still be undeleted.")
@wide_option
def status(directory: Path, trash: bool, wide: bool) -> None:
    """List the revisions, the oldest first, and how much data they contain.

    Changed is how much differs from the earlier revision, or from zeroes if there was none; Stored is how much space
    that took. Data that is kept only as the base of differences counts for no revision and has a line of its own. The
    last line has the space that the repository takes on the disk now.
    """
    from backy.answers.space import occupied
    from backy.durable import names_in
    from backy.groups.group import opened
    from backy.integrity import quarantine
    from backy.repository.running import begun
    from backy.repository.uses import uses

    group = opened(directory)
    shown = _of_group(group, trash=trash) if group else _of_repository(repository_of(directory), trash=trash)
    reports = sum(map(quarantine.count, shown.directories))
    taken, running = [*map(occupied, shown.directories)], sorted(begun(names_in(directory)))
    occupies, shared = sum(one.total for one in taken), sum(one.shared for one in taken)
    used = sorted({one for each in shown.directories for one in uses(each)})
    figures = {"occupied": occupies, "shared": shared, "reports": reports, "running": running, "in-use": used}
    if not answered({**shown.content, **figures}):
        print_table(shown.revisions, wide=wide)
        texts = [
            *shown.texts,
            f"{shown.total} {size(occupies)}{f', {size(shared)} of it in the pool, too' if shared else ''}",
        ]
        if reports:
            texts.insert(0, f"{counted(reports, 'report')} of damage or differences; 'backy reports list' shows them")
        texts += [f"{one} is in use by a live restore, and is kept for it" for one in used]
        for text in [*texts, *(f"{one} is being made, or its backup was interrupted" for one in running)]:
            echo(text)
    # After the table: one damaged record hides none of the others.
    if shown.problems:
        raise DamageError(f"{directory.absolute()}: {'; '.join(shown.problems)}")


def _of_repository(repository: Repository, *, trash: bool) -> Shown:
    """Return the revisions of a repository."""
    from backy.answers.space import held_by
    from backy.retention.purge import KEPT, leftovers

    everything, damaged = repository.records.survey(trash=True)
    revisions = [revision for revision in everything if bool(revision.state.forgotten) == trash]
    held, left = held_by(repository, everything), [found for _, found in leftovers(repository)]
    content = {"revisions": [*map(described, revisions)], "held": held, "left": left}
    texts = [text for revision in revisions for text in _remarks(revision)]
    # Only if there is any: most repositories have none, and never will.
    if held.files:
        one, many = "file is held only for what differs from it", "files are held only for what differs from them"
        texts.append(f"{size(held.bytes)} in {counted(held.files, one, many)}")
    for found in left:
        until = local_time(found.since + KEPT, zone=True)
        texts.append(f"{size(found.bytes)} of a backup that did not end; the next one goes on with it, until {until}")
    problems = [*map(str, damaged), *(revision.state_problem for revision in revisions if revision.state_problem)]
    total = f"{counted(len(revisions), 'revision')} in a repository of"
    return Shown([repository.directory], revisions, content, total, texts, problems)


def _remarks(revision: Revision) -> Iterator[str]:
    """Yield what is to be known of a revision."""
    for remark in revision.verification.remarks if revision.verification else ():
        yield f"{revision.id} {remark}"
    if revision.shrunk:
        yield f"revision {revision.id} {revision.shrunk.to(revision.size)}"
    if revision.consistency == "none":
        yield f"{revision.id} is torn: its parts are of different times, for the source was written to meanwhile"


def _of_group(group: Group, *, trash: bool) -> Shown:
    """Return the revisions of all disks together."""
    whole, partial, damaged = group.survey()
    disks = [group.directory / name for name in group.names()]
    found = [one for one in whole if one.forgotten == {trash}]
    problems = [*map(str, damaged), *(one.lacking for one in partial)]
    problems += [one.state_problem for each in found for one in each.members.values() if one.state_problem]
    total = f"{counted(len(found), 'revision')} of {counted(len(disks), 'disk')} in"
    return Shown(disks, [one.revision for one in found], {"revisions": [*map(_details, found)]}, total, [], problems)


def _details(found: Together) -> dict[str, Any]:
    revision = found.revision
    return {
        **chosen(revision, "id", "seq", "timestamp", "tags"),
        "disks": {name: {"size": one.size, "consistency": one.consistency} for name, one in found.members.items()},
        **chosen(revision, "stall", "trust"),
    }


@click.command("diff")
@click.argument("old", metavar="OLD", shell_complete=revisions)
@click.argument("new", metavar="NEW", shell_complete=revisions)
def diff(directory: Path, old: str, new: str) -> None:
    """List the ranges of the revision NEW that differ from the revision OLD. Each is given as a SPEC.

    Each line has offset and length in bytes of a range that changed, and whether it is data or zeroes now. Pages of 4
    KiB are compared, and only chunks that differ are read. Where the images have different sizes, what OLD lacks counts
    as zeroes, and what NEW lacks is not listed.
    """
    from backy.answers.images import compare

    repository = repository_of(directory)
    before, after = repository.records.select(old), repository.records.select(new)
    with steps() as show, repository.image(before) as first, repository.image(after) as second:
        found = compare(first, second, show)
    # By their ids: a tag or a number may mean another revision tomorrow.
    ends = {name: chosen(one, "id", "size") for name, one in (("old", before), ("new", after))}
    extents = [one._asdict() for one in found.extents]
    if not answered({**ends, **chosen(found, "bytes", "chunks"), "damaged": len(found.damaged), "extents": extents}):
        # Columns as wide as the largest image: the offset of a byte in 9 PiB has 16 digits.
        for extent in found.extents:
            echo(f"{extent.offset:>16} {extent.length:>16} {'data' if extent.data else 'zeroes'}")
        where = f"{counted(len(found.extents), 'range')} of {counted(found.chunks, 'chunk')}"
        echo(f"{size(found.bytes)} in {where} changed")
    # Last, and as an error: the list is complete, but says too much.
    if found.damaged:
        one = "chunk can not be compared and counts as changed as a whole"
        many = "chunks can not be compared and count as changed as a whole"
        raise DamageError(f"{counted(len(found.damaged), one, many)}, the first: {found.damaged[0]}")


@click.group("plan", cls=Commands)
def plan() -> None:
    """Estimate what a command would do, without doing it."""


@plan.command("restore")
@revision_option
def restore(directory: Path, specification: str) -> None:
    """Estimate how much 'backy restore' reads and writes and how long it takes, and find chunks that it can not read.

    Checks that all files are there, and reads a few chunks to measure the speed; the target may be slower. Damage
    inside of the other files is not found: 'backy scrub deep' finds it.
    """
    import time

    from backy.answers.images import forecast

    repository = repository_of(directory)
    revision = repository.records.select_image(specification)
    with steps() as show, repository.image(revision) as image:
        found = forecast(image, show, time.monotonic)
    figures = {"revision": revision.id, **chosen(found, "size", "data", "stored"), "seconds": found.estimate}
    if not answered({**figures, "damaged": sorted(found.damaged)}):  # numbers of the chunks
        echo(f"Revision  {revision.id} of {local_time(revision.timestamp, zone=True)}")
        echo(f"Image     {size(found.size)}, of which {size(found.data)} are data")
        echo(f"Stored    {'not known' if found.stored is None else size(found.stored)}")
        if found.estimate is not None:
            # So few bytes may be read in no time at all by the clock.
            rate = size(int(found.sampled / max(found.seconds, 1e-6)))
            about = length_of_time(max(found.estimate, 1))
            echo(f"Estimate  {about} to read, at {rate}/s as {size(found.sampled)} were read just now")
    # An error, so that scripts notice before they rely on this restore.
    if found.damaged:
        first = min(found.damaged)
        what = f"{counted(len(found.damaged), 'chunk')} can not be restored, the first is {found.damaged[first]}"
        raise DamageError(f"{what}; 'backy restore --salvage FILE' restores the rest")


@click.command("why")
@revision_option
def why(directory: Path, specification: str) -> None:
    """Tell why a revision is kept, and until when by the schedule."""
    from backy.answers.reasons import reasons
    from backy.groups.group import Group, opened
    from backy.repository.repository import Repository

    found = found_in(directory)
    if isinstance(found, Repository):
        revision, history = found.records.select(specification), found.records.history()
        # they expire by the schedule of the machine
        if revision.group and (machine := opened(found.directory.parent)):
            found, specification = machine, revision.id
    if isinstance(found, Group):
        revision, history = found.select(specification).revision, found.history()
    kept = reasons(found.config, found.job.name, history, utc_now())[revision.id]
    texts = [f"{revision.id} of {local_time(revision.timestamp)}, tags: {', '.join(revision.tags) or 'none'}"]
    if revision.doubtful:
        texts.append(f"{revision.doubt}, so it does not count among the newer ones of others")
    # Every reason: tags expire one by one, and the last one decides.
    for one in kept:
        until = f"until {local_time(one.until)}" if one.until else "for ever"
        texts.append(f"{one.tag or 'kept'} {until}: {one.cause}")
    answer(
        {"revision": revision.id, "reasons": kept}, *texts, *([] if kept else ["not kept: 'backy expire' removes it"])
    )


_WITNESS = "What 'backy audit --json' printed, a status file, or a copy, as 'backy pull' names it; may be repeated."


@click.command("audit")
@click.option("--witness", "witnesses", multiple=True, metavar="FILE|SOURCE", help=_WITNESS)
@click.option("--adopt", "adopting", is_flag=True, help="Declare that what is there is right from now on.")
@each_disk
def audit(directory: Path, witnesses: tuple[str, ...], adopting: bool) -> None:
    """Find out whether somebody else than backy has removed or changed a revision.

    The journal tells what was done to each revision. Somebody who can write to the repository can rewrite it, but not
    so that it still leads to the line that a witness has seen: keep one elsewhere, such as what '--json' prints.
    """
    from backy.answers.audit import adopt, audit, read_witness
    from backy.copies.copies import witnesses as seen_at

    if adopting and witnesses:
        raise click.UsageError("--adopt asks no witness; find out first what the witness says, without it")
    repository = repository_of(directory)
    heads = [head for one in witnesses for head in (read_witness(Path(one)) if Path(one).is_file() else seen_at(one))]
    result = adopt(repository) if adopting else audit(repository, heads)
    total = f"{counted(result.revisions, 'revision')}, {counted(result.lines, 'line')} in the journal"
    answer(result, *result.findings, total)
    if result.findings:
        raise TamperingError(f"{counted(len(result.findings), 'finding')} in {repository.directory}")
