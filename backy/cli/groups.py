"""What `backy status` shows of the disks of one machine."""

from pathlib import Path
from typing import Any, NamedTuple

from backy.cli.output import chosen
from backy.groups.group import Group, Together
from backy.repository.revision import Revision
from backy.text.phrases import counted


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


def of_group(group: Group, *, trash: bool) -> Shown:
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
