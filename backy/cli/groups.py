"""How `backy status` shows the disks of one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backy.answers.occupied import occupied
from backy.cli.output import echo, is_terminal, print_json
from backy.errors import DamageError
from backy.groups.group import Group, Together
from backy.terminal.table import columns
from backy.text.phrases import counted, local_time, local_zone, size


def print_status(group: Group, *, as_json: bool, trash: bool) -> None:
    """Print the revisions of all disks together; raise DamageError if some can not be told."""
    whole, partial, damaged = group.survey()
    shown = [one for one in whole if one.forgotten == {trash}]
    occupies = sum(occupied(group.directory / name) for name in group.names())
    if as_json:
        print_json({"revisions": [_details(one) for one in shown], "occupied": occupies})
    else:
        zone = local_zone(one.revision.timestamp for one in reversed(shown))
        cells: dict[str, Callable[[Together], str]] = {
            f"Date ({zone})": lambda one: local_time(one.revision.timestamp),
            "ID": lambda one: one.id,
            "Disks": lambda one: ",".join(one.members),
            "Size": lambda one: size(sum(disk.size for disk in one.members.values())),
            "Changed": lambda one: size(sum(disk.statistics.bytes_written for disk in one.members.values())),
            "Stored": lambda one: size(sum(disk.statistics.bytes_stored for disk in one.members.values())),
            "Consistency": lambda one: one.consistency,
            "Trust": lambda one: str(one.revision.trust),
            "Tags": lambda one: ",".join(one.revision.tags),
        }
        echo(columns(shown, cells, ["Size", "Changed", "Stored"], round_corners=is_terminal()), lines=True)
        echo(f"{counted(len(shown), 'revision')} of {counted(len(group.names()), 'disk')} in {size(occupies)}")
    problems = [str(error) for error in damaged]
    problems += [f"of {one.id} not all disks are there: {', '.join(one.members)} alone" for one in partial]
    if problems:
        raise DamageError(f"{group.directory}: {'; '.join(problems)}")


def _details(found: Together) -> dict[str, Any]:
    """Return the members of a group in `--json`; docs/reference/status.md documents them."""
    revision = found.revision
    return {
        "id": revision.id,
        "seq": revision.seq,
        "timestamp": revision.timestamp,
        "tags": revision.tags,
        "disks": {name: {"size": one.size, "consistency": one.consistency} for name, one in found.members.items()},
        "stall": revision.stall,
        "trust": revision.trust,
    }
