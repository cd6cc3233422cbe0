"""`backy reports`: reports of damage and differences, with evidence."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.output import answer, answered, echo, width
from backy.cli.usage import Group
from backy.text.phrases import counted, local_time, local_zone, short_ids


@click.group("reports", cls=Group)
def command() -> None:
    """List, show and delete the reports of damaged chunks and failed verifications."""


@command.command("list")
@each_disk
def list_(directory: Path) -> None:
    """List the reports."""
    from backy.integrity import quarantine
    from backy.terminal.table import CAUSE, table

    found = list(quarantine.findings(repository_of(directory).directory))
    if answered({"reports": found}):
        return
    ids = short_ids(finding.name for finding in found)
    if found:
        date = f"Date ({local_zone(finding.timestamp for finding in found)})"
        shown = {
            date: lambda one: local_time(one.timestamp),
            "Report": lambda one: ids[one.name],
            CAUSE: lambda one: f"{one.cause}{', repaired' if one.repaired else ''}",
        }
        echo(table(found, shown, width=width()), lines=True)
    # Last, where it is seen below a long list.
    echo(counted(len(found), "report"))


@command.command("show")
@click.argument("name", metavar="REPORT")
def show(directory: Path, name: str) -> None:
    """Show one report and the path of its evidence. The beginning of its name is enough."""
    import msgspec

    from backy.integrity import quarantine

    repository = repository_of(directory).directory
    finding = quarantine.find(repository, name)
    if answered(finding):
        return
    # All fields, as they are in the file: new ones are shown without a change here.
    for key, value in msgspec.to_builtins(finding).items():
        echo(f"{key}: {'-' if value is None else value}")
    echo(f"evidence: {repository / quarantine.FOLDER / finding.name}")


@command.command("delete")
@click.argument("names", metavar="REPORT", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Delete all reports.")
def delete(directory: Path, names: tuple[str, ...], everything: bool) -> None:
    """Delete reports and their evidence; this changes no revision."""
    from backy.integrity import quarantine

    # Neither: nothing is deleted by accident. Both: one of them is a mistake.
    if bool(names) == everything:
        raise click.UsageError("name the reports to delete, or give --all")
    repository = repository_of(directory).directory
    deleted = quarantine.delete(repository, None if everything else names)
    answer({"reports": deleted}, f"Deleted {counted(len(deleted), 'report')}")
