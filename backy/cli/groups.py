"""How `backy status` shows the disks of one machine."""

from typing import Any

from backy.answers.space import occupied
from backy.cli.output import chosen, echo, print_json
from backy.cli.revisions import print_table
from backy.durable import names_in
from backy.errors import DamageError
from backy.groups.group import Group, Together
from backy.integrity import quarantine
from backy.repository.running import begun
from backy.text.phrases import counted, size


def print_status(group: Group, *, as_json: bool, trash: bool) -> None:
    """Print the revisions of all disks together; raise DamageError if some can not be told."""
    whole, partial, damaged = group.survey()
    disks = [group.directory / name for name in group.names()]
    reports, running = sum(map(quarantine.count, disks)), sorted(begun(names_in(group.directory)))
    shown = [one for one in whole if one.forgotten == {trash}]
    occupies = sum(map(occupied, disks))
    if as_json:
        revisions = [_details(one) for one in shown]
        print_json({"revisions": revisions, "occupied": occupies, "reports": reports, "running": running})
    else:
        headings = "ID", "Disks", "Size", "Changed", "Stored", "Consistency", "Trust", "Tags"
        print_table([one.revision for one in shown], *headings, Trust=lambda one: str(one.trust))
        if reports:
            echo(f"{counted(reports, 'report')} of damage or differences; 'backy reports list' shows them")
        echo(f"{counted(len(shown), 'revision')} of {counted(len(disks), 'disk')} in {size(occupies)}")
        for group_id in running:
            echo(f"{group_id} is being made, or its backup was interrupted")
    problems = [*map(str, damaged), *(one.lacking for one in partial)]
    problems += [one.state_problem for found in shown for one in found.members.values() if one.state_problem]
    if problems:
        raise DamageError(f"{group.directory}: {'; '.join(problems)}")


def _details(found: Together) -> dict[str, Any]:
    """Return the members of a group in `--json`; docs/reference/status.md documents them."""
    revision = found.revision
    return {
        **chosen(revision, "id", "seq", "timestamp", "tags"),
        "disks": {name: {"size": one.size, "consistency": one.consistency} for name, one in found.members.items()},
        **chosen(revision, "stall", "trust"),
    }
