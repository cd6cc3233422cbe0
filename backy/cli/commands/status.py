"""`backy status`: list the revisions."""

from pathlib import Path
from typing import Any

import click

from backy.api import Held
from backy.cli.output import chosen, echo, print_json
from backy.cli.revisions import print_table
from backy.errors import DamageError
from backy.repository.revision import Revision, Trust
from backy.text.phrases import NOTHING, counted, local_time, size


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print an object with all details.")
@click.option("--trash", is_flag=True, help="List what was forgotten or has expired, and can still be undeleted.")
@click.pass_obj
def command(directory: Path, as_json: bool, trash: bool) -> None:
    """List the revisions, the oldest first, and how much data they contain.

    Changed is how much differs from the earlier revision, or from zeroes if there was none; Stored is how much space
    that took. Data that is kept only as the base of differences counts for no revision and has a line of its own. The
    last line has the space that the repository takes on the disk now.
    """
    from backy.answers.space import held_by, occupied
    from backy.cli.groups import print_status
    from backy.durable import names_in
    from backy.groups.group import opened
    from backy.integrity import quarantine
    from backy.repository.repository import Repository
    from backy.repository.running import begun
    from backy.retention.purge import KEPT, leftovers

    if group := opened(directory):
        print_status(group, as_json=as_json, trash=trash)
        return
    repository = Repository.open(directory)
    everything, damaged = repository.records.survey(trash=True)
    revisions = [revision for revision in everything if bool(revision.state.forgotten) == trash]
    held = held_by(repository, everything)
    occupies = occupied(repository.directory)
    running = sorted(begun(names_in(repository.directory)))
    left = [found for _, found in leftovers(repository)]
    reports = quarantine.count(repository.directory)
    if as_json:
        content = {
            "revisions": [_details(revision) for revision in revisions],
            "held": held,
            "occupied": occupies,
            "left": left,
            "reports": reports,
            "running": running,
        }
        print_json(content)
    else:
        _print_table(revisions, held, reports)
        echo(f"{counted(len(revisions), 'revision')} in a repository of {size(occupies)}")
        for found in left:
            until = local_time(found.since + KEPT, zone=True)
            echo(f"{size(found.bytes)} of a backup that did not end; the next one goes on with it, until {until}")
        for revision_id in running:
            echo(f"{revision_id} is being made, or its backup was interrupted")
    # After the table: one damaged record hides none of the others.
    problems = [*map(str, damaged), *(revision.state_problem for revision in revisions if revision.state_problem)]
    if problems:
        raise DamageError(f"{repository.directory}: {'; '.join(problems)}")


def _details(revision: Revision) -> dict[str, Any]:
    """Return the members of a revision in `--json`; docs/reference/status.md documents them."""
    # Named one by one: a new member of the record becomes public only on purpose.
    return {
        **chosen(revision, "id", "seq", "timestamp", "tags", "parent", "storage", "size", "consistency", "unfrozen"),
        **chosen(revision, "shrunk", "group", "stall", "snapshot"),
        **chosen(revision.statistics, "duration", "bytes_read", "bytes_written", "bytes_stored"),
        **chosen(revision, "verification", "verifications", "compared_since", "trust", "damaged"),
        **chosen(revision.state, "wrong", "verified", "origin", "forgotten"),
    }


def _print_table(revisions: list[Revision], held: Held, reports: int) -> None:
    """Print the table and the sums below it."""
    headings = "ID", "Size", "Changed", "Stored", "Durat", "Consistency", "Verification", "Trust", "Tags"
    print_table(revisions, *headings, Verification=_verification, Trust=_trust)
    for revision in revisions:
        for remark in revision.verification.remarks if revision.verification else ():
            echo(f"{revision.id} {remark}")
        if revision.shrunk:
            echo(f"revision {revision.id} {revision.shrunk.to(revision.size)}")
        if revision.consistency == "none":
            echo(f"{revision.id} is torn: its parts are of different times, for the source was written to meanwhile")
    # Only if there is any: most repositories have none, and never will.
    if held.files:
        one, many = "file is held only for what differs from it", "files are held only for what differs from them"
        echo(f"{size(held.bytes)} in {counted(held.files, one, many)}")
    if reports:
        echo(f"{counted(reports, 'report')} of damage or differences; 'backy reports list' shows them")


def _verification(revision: Revision) -> str:
    verification, since = revision.verification, revision.compared_since
    # the other chunks had their turn in earlier backups
    if verification and since and verification.checked < verification.total:
        return f"{verification}, all since {local_time(since)}"
    return str(verification or NOTHING)


def _trust(revision: Revision) -> str:
    if revision.damaged:
        return f"{revision.trust}, {counted(len(revision.damaged), 'damaged chunk')}"
    if revision.trust is Trust.WRONG and revision.state.wrong is not None:
        return f"{revision.trust}, {counted(len(revision.state.wrong.chunks), 'chunk')}"
    return revision.trust
