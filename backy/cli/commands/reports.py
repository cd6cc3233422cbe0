"""`backy reports`: reports of damage and differences, with evidence."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.output import echo, print_json
from backy.text.phrases import counted, local_time


@click.group("reports")
def command() -> None:
    """List, show and delete the reports of damaged chunks and failed verifications."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@each_disk
def list_(directory: Path, as_json: bool) -> None:
    """List the reports."""
    from backy.integrity import quarantine

    found = list(quarantine.findings(repository_of(directory).directory))
    if as_json:
        print_json(found)
        return
    for finding in found:
        repaired = ", repaired" if finding.repaired else ""
        echo(f"{local_time(finding.timestamp)}  {finding.name}  {finding.cause}{repaired}")
    # Last, where it is seen below a long list.
    echo(counted(len(found), "report"))


@command.command("show")
@click.argument("name", metavar="REPORT")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
@click.pass_obj
def show(directory: Path, name: str, as_json: bool) -> None:
    """Show one report and the path of its evidence. The beginning of its name is enough."""
    import msgspec

    from backy.integrity import quarantine

    repository = repository_of(directory).directory
    finding = quarantine.find(repository, name)
    if as_json:
        print_json(finding)
        return
    # All fields, as they are in the file: new ones are shown without a change here.
    for key, value in msgspec.to_builtins(finding).items():
        echo(f"{key}: {'-' if value is None else value}")
    echo(f"evidence: {repository / quarantine.FOLDER / finding.name}")


@command.command("delete")
@click.argument("names", metavar="REPORT", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Delete all reports.")
@click.pass_obj
def delete(directory: Path, names: tuple[str, ...], everything: bool) -> None:
    """Delete reports and their evidence; this changes no revision."""
    from backy.integrity import quarantine

    # Neither: nothing is deleted by accident. Both: one of them is a mistake.
    if bool(names) == everything:
        raise click.UsageError("name the reports to delete, or give --all")
    repository = repository_of(directory).directory
    deleted = quarantine.delete(repository, None if everything else names)
    echo(f"Deleted {counted(len(deleted), 'report')}")
