"""The table of revisions, of one disk or of all disks of a machine."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from backy.cli.output import answer, chosen, echo, width
from backy.repository.revision import Revision, Trust
from backy.text.phrases import NOTHING, TO_MINUTES, counted, length_of_time, local_time, local_zone, short_ids, size

_WIDE: Final[dict[str, Callable[[Revision], str]]] = {
    "Stored": lambda one: size(one.statistics.bytes_stored),
    "Took": lambda one: length_of_time(one.statistics.duration),
    "Consistency": lambda one: f"{one.consistency}, not frozen" if one.unfrozen else one.consistency,
}
"""Columns that are there only if they are asked for."""


def print_table(revisions: Sequence[Revision], *, wide: bool) -> None:
    """Print a table of revisions, or of what stands for each group of disks."""
    from backy.terminal.table import table

    # The newest revision decides: the zone of most readers is today's.
    zone = local_zone(one.timestamp for one in reversed(revisions))
    ids = short_ids(one.id for one in revisions)
    shown: dict[str, Callable[[Revision], str]] = {
        f"Date ({zone})": lambda one: local_time(one.timestamp)[: None if wide else TO_MINUTES],
        "ID": lambda one: one.id if wide else ids[one.id],
        "Tags": lambda one: ", ".join(one.tags),
        "Image": lambda one: size(one.size),
        "Changed": lambda one: size(one.statistics.bytes_written),
        **(_WIDE if wide else {}),
        "Trust": _trust,
    }
    if any(one.group for one in revisions):
        shown["Disks"] = lambda one: ", ".join(one.group.disks if one.group else ())
    elif wide:
        shown["Verification"] = _verification
    right, folding = ["Image", "Changed", "Stored", "Took"], ["Tags", "Trust", "Disks"]
    echo(table(revisions, shown, right, folding, None if wide else width()), lines=True)


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


def described(revision: Revision) -> dict[str, Any]:
    """Return the members of a revision in `--json`; docs/reference/status.md documents them."""
    # Named one by one: a new member of the record becomes public only on purpose.
    return {
        **chosen(revision, "id", "seq", "timestamp", "tags", "parent", "storage", "size", "consistency", "unfrozen"),
        **chosen(revision, "shrunk", "group", "stall", "snapshot"),
        **chosen(revision.statistics, "duration", "bytes_read", "bytes_written", "bytes_stored"),
        **chosen(revision, "verification", "verifications", "compared_since", "trust", "damaged"),
        **chosen(revision.state, "wrong", "verified", "origin", "forgotten"),
    }


def answer_with(revisions: Iterable[Revision], *texts: object) -> None:
    """Print revisions as JSON if '--json' was given, and otherwise each of `texts` in a line."""
    answer({"revisions": [*map(described, revisions)]}, *texts)
