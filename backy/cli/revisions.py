"""The table of revisions, of one disk or of all disks of a machine."""

from collections.abc import Callable, Sequence
from typing import Final

from backy.cli.output import echo, is_terminal
from backy.repository.revision import Revision
from backy.text.phrases import length_of_time, local_time, local_zone, size

Cell = Callable[[Revision], str]
_CELLS: Final[dict[str, Cell]] = {
    "ID": lambda one: one.id,
    "Disks": lambda one: ",".join(one.group.disks if one.group else ()),
    "Size": lambda one: size(one.size),
    "Changed": lambda one: size(one.statistics.bytes_written),
    "Stored": lambda one: size(one.statistics.bytes_stored),
    "Durat": lambda one: length_of_time(one.statistics.duration),
    "Consistency": lambda one: f"{one.consistency}, not frozen" if one.unfrozen else one.consistency,
    "Tags": lambda one: ",".join(one.tags),
}


def print_table(revisions: Sequence[Revision], *headings: str, **others: Cell) -> None:
    """Print a table with the columns `headings`, of which `others` are made in another way."""
    from backy.terminal.table import columns

    # The newest revision decides: the zone of most readers is today's.
    zone = local_zone(one.timestamp for one in reversed(revisions))
    cells = {**_CELLS, **others}
    shown: dict[str, Cell] = {f"Date ({zone})": lambda one: local_time(one.timestamp)}
    shown |= {heading: cells[heading] for heading in headings}
    # Plain where it is piped: scripts grep it as they did that of backy 2.
    echo(columns(revisions, shown, ["Size", "Changed", "Stored", "Durat"], round_corners=is_terminal()), lines=True)
