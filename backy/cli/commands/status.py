"""`backy status`: list the revisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backy.api import Held
from backy.cli.output import echo, is_terminal, print_json
from backy.errors import DamageError
from backy.repository.revision import Revision, Trust
from backy.text.phrases import NOTHING, counted, length_of_time, local_time, local_zone, size


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print an object with all details.")
@click.pass_obj
def command(directory: Path, as_json: bool) -> None:
    """List the revisions, the oldest first, and how much data they contain.

    Size is how much changed since the earlier revision, Stored how much space that took. Data that is kept only as the
    base of differences counts for no revision and has a line of its own.
    """
    from backy.integrity import quarantine
    from backy.repository.repository import Repository
    from backy.repository.running import begun
    from backy.retention.purge import held_by

    repository = Repository.open(directory)
    revisions, damaged = repository.records.survey()
    held = held_by(repository, revisions)
    running = sorted(begun(repository.directory))
    reports = quarantine.count(repository.directory)
    if as_json:
        content = {
            "revisions": [_details(revision) for revision in revisions],
            "held": held,
            "reports": reports,
            "running": running,
        }
        print_json(content)
    else:
        _print_table(revisions, held, reports)
        for revision_id in running:
            echo(f"{revision_id} is being made, or its backup was interrupted")
    # After the table: one damaged record hides none of the others.
    problems = [*map(str, damaged), *(revision.state_problem for revision in revisions if revision.state_problem)]
    if problems:
        raise DamageError(f"{repository.directory}: {'; '.join(problems)}")


def _details(revision: Revision) -> dict[str, Any]:
    """Return the members of a revision in `--json`; docs/reference/status.md documents them."""
    # Named one by one: a new member of the record becomes public only on purpose.
    statistics = revision.statistics
    return {
        "id": revision.id,
        "seq": revision.seq,
        "timestamp": revision.timestamp,
        "tags": revision.tags,
        "parent": revision.parent,
        "storage": revision.storage,
        "size": revision.size,
        "consistency": revision.consistency,
        "unfrozen": revision.record.unfrozen,
        "snapshot": revision.snapshot,
        "duration": statistics.duration,
        "bytes_read": statistics.bytes_read,
        "bytes_written": statistics.bytes_written,
        "bytes_stored": statistics.bytes_stored,
        "verification": revision.verification,
        "verifications": revision.verifications,
        "trust": revision.trust,
        "damaged": revision.damaged,
        "wrong": revision.state.wrong,
        "verified": revision.state.verified,
        "origin": revision.state.origin,
    }


def _print_table(revisions: list[Revision], held: Held, reports: int) -> None:
    """Print the table and the sums below it."""
    from backy.text.table import table

    # The newest revision decides: the zone of most readers is today's.
    zone = local_zone(revision.timestamp for revision in reversed(revisions))
    headings = [f"Date ({zone})", "ID", "Size", "Stored", "Durat", "Consistency", "Verification", "Trust", "Tags"]
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
    written = sum(revision.statistics.bytes_written for revision in revisions)
    echo(f"{counted(len(revisions), 'revision')} containing {size(written)} data (estimated)")


def _row(revision: Revision) -> list[str]:
    statistics = revision.statistics
    return [
        local_time(revision.timestamp),
        revision.id,
        size(statistics.bytes_written),
        size(statistics.bytes_stored),
        length_of_time(statistics.duration),
        f"{revision.consistency}, not frozen" if revision.record.unfrozen else revision.consistency,
        str(revision.verification or NOTHING),
        _trust(revision),
        ",".join(revision.tags),
    ]


def _trust(revision: Revision) -> str:
    if revision.damaged:
        return f"{revision.trust}, {counted(len(revision.damaged), 'damaged chunk')}"
    if revision.trust is Trust.WRONG and revision.state.wrong is not None:
        return f"{revision.trust}, {counted(len(revision.state.wrong.chunks), 'chunk')}"
    return revision.trust
