"""`backy status`: list the revisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from backy.cli.options import wide_option
from backy.cli.output import answered, chosen, echo
from backy.cli.revisions import described, print_table
from backy.errors import DamageError
from backy.repository.revision import Revision
from backy.text.phrases import counted, local_time, size

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
def command(directory: Path, trash: bool, wide: bool) -> None:
    """List the revisions, the oldest first, and how much data they contain.

    Changed is how much differs from the earlier revision, or from zeroes if there was none; Stored is how much space
    that took. Data that is kept only as the base of differences counts for no revision and has a line of its own. The
    last line has the space that the repository takes on the disk now.
    """
    from backy.answers.space import occupied
    from backy.durable import names_in
    from backy.groups.group import opened
    from backy.integrity import quarantine
    from backy.repository.repository import Repository
    from backy.repository.running import begun

    group = opened(directory)
    shown = _of_group(group, trash=trash) if group else _of_repository(Repository.open(directory), trash=trash)
    reports = sum(map(quarantine.count, shown.directories))
    occupies, running = sum(map(occupied, shown.directories)), sorted(begun(names_in(directory)))
    if not answered({**shown.content, "occupied": occupies, "reports": reports, "running": running}):
        print_table(shown.revisions, wide=wide)
        texts = [*shown.texts, f"{shown.total} {size(occupies)}"]
        if reports:
            texts.insert(0, f"{counted(reports, 'report')} of damage or differences; 'backy reports list' shows them")
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
