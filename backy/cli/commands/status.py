"""`backy status`: list the revisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backy.api import Held
from backy.cli.output import echo, is_terminal, print_json
from backy.errors import DamageError
from backy.repository.revision import Revision
from backy.text.phrases import NOTHING, counted, length_of_time, local_time, local_zone, size


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print an object with all details.")
@click.option("--all", "everything", is_flag=True, help="Show incomplete revisions too.")
@click.pass_obj
def command(directory: Path, as_json: bool, everything: bool) -> None:
    """List the revisions, the oldest first, and how much data they contain.

    Size is how much changed since the earlier revision, Stored how much space that took. Data that is kept only as the
    base of differences counts for no revision and has a line of its own.
    """
    from backy.integrity import quarantine
    from backy.repository.repository import Repository
    from backy.retention.purge import held_by

    repository = Repository.open(directory)
    sound, damaged = repository.records.survey()
    revisions = [revision for revision in sound if revision.complete or everything]
    held = held_by(repository, sound)
    reports = quarantine.count(repository.directory)
    if as_json:
        content = {
            "revisions": [_details(revision) for revision in revisions],
            "held": held,
            "reports": reports,
        }
        print_json(content)
    else:
        _print_table(revisions, held, reports)
    # After the table: one damaged record hides none of the others.
    if damaged:
        raise DamageError(f"{repository.directory}: {'; '.join(str(error) for error in damaged)}")


def _details(revision: Revision) -> dict[str, Any]:
    """Return the members of a revision in `--json`; docs/reference/status.md documents them."""
    # Named one by one: a new member of the record becomes public only on purpose.
    statistics = revision.statistics
    return {
        "id": revision.id,
        "timestamp": revision.timestamp,
        "tags": revision.tags,
        "complete": revision.complete,
        "parent": revision.parent,
        "storage": revision.storage,
        "size": revision.size,
        "consistent": revision.consistent,
        "snapshot": revision.snapshot,
        "duration": statistics and statistics.duration,
        "bytes_read": statistics and statistics.bytes_read,
        "bytes_written": statistics and statistics.bytes_written,
        "bytes_stored": statistics and statistics.bytes_stored,
        "verification": revision.verification,
        "verifications": revision.verifications,
        "trust": revision.trust,
        "damaged": revision.damaged,
    }


def _print_table(revisions: list[Revision], held: Held, reports: int) -> None:
    """Print the table and the sums below it."""
    from backy.text.table import table

    # The newest revision decides: the zone of most readers is today's.
    zone = local_zone(revision.timestamp for revision in reversed(revisions))
    headings = [f"Date ({zone})", "ID", "Size", "Stored", "Durat", "Verification", "Trust", "Tags"]
    right = ["Size", "Stored", "Durat"]
    # Plain where it is piped: scripts grep it as they did that of backy 2.
    echo(table(headings, [_row(revision) for revision in revisions], right, round_corners=is_terminal()))
    for revision in revisions:
        for remark in revision.verification.remarks if revision.verification else ():
            echo(f"{revision.id} {remark}")
    # Only if there is any: most repositories have none, and never will.
    if held.files:
        files = counted(
            held.files, "file is held only for what differs from it", "files are held only for what differs from them"
        )
        echo(f"{size(held.bytes)} in {files}")
    if reports:
        echo(f"{counted(reports, 'report')} of damage or differences; 'backy reports list' shows them")
    written = sum(revision.statistics.bytes_written for revision in revisions if revision.statistics)
    echo(f"{counted(len(revisions), 'revision')} containing {size(written)} data (estimated)")


def _row(revision: Revision) -> list[str]:
    statistics = revision.statistics
    return [
        local_time(revision.timestamp),
        revision.id,
        size(statistics.bytes_written) if statistics else NOTHING,
        size(statistics.bytes_stored) if statistics else NOTHING,
        length_of_time(statistics.duration if statistics else None),
        _verification(revision),
        _trust(revision),
        ",".join(revision.tags),
    ]


def _verification(revision: Revision) -> str:
    text = str(revision.verification or NOTHING)
    return text if revision.consistent else f"{text}, not consistent"


def _trust(revision: Revision) -> str:
    if revision.damaged:
        return f"{revision.trust}, {counted(len(revision.damaged), 'damaged chunk')}"
    return revision.trust
