"""`backy status`: list the revisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.options import wide_option
from backy.cli.output import answered, echo
from backy.cli.revisions import described, print_table
from backy.errors import DamageError
from backy.repository.revision import Revision
from backy.text.phrases import counted, local_time, size

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.cli.groups import Shown
    from backy.repository.repository import Repository


@click.command("status")
@click.option("--trash", is_flag=True, help="List what was forgotten or has expired, and can still be undeleted.")
@wide_option
@click.pass_obj
def command(directory: Path, trash: bool, wide: bool) -> None:
    """List the revisions, the oldest first, and how much data they contain.

    Changed is how much differs from the earlier revision, or from zeroes if there was none; Stored is how much space
    that took. Data that is kept only as the base of differences counts for no revision and has a line of its own. The
    last line has the space that the repository takes on the disk now.
    """
    from backy.answers.space import occupied
    from backy.cli.groups import of_group
    from backy.durable import names_in
    from backy.groups.group import opened
    from backy.integrity import quarantine
    from backy.repository.repository import Repository
    from backy.repository.running import begun

    group = opened(directory)
    shown = of_group(group, trash=trash) if group else _of_repository(Repository.open(directory), trash=trash)
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
    from backy.cli.groups import Shown
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
