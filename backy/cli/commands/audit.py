"""`backy audit`: hold the repository against its journal."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.output import answer
from backy.text.phrases import counted


@click.command("audit")
@click.option(
    "--witness",
    "witnesses",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="What 'backy audit --json' printed earlier, or a scheduler's status file; may be repeated.",
)
@click.option("--adopt", "adopting", is_flag=True, help="Declare that what is there is right from now on.")
@each_disk
def command(directory: Path, witnesses: tuple[Path, ...], adopting: bool) -> None:
    """Find out whether somebody else than backy has removed or changed a revision.

    The journal tells what was done to each revision. Somebody who can write to the repository can rewrite it, but not
    so that it still leads to the line that a witness has seen: keep one elsewhere, such as what '--json' prints.
    """
    from backy.answers.audit import adopt, audit, read_witness
    from backy.errors import TamperingError

    if adopting and witnesses:
        raise click.UsageError("--adopt asks no witness; find out first what the witness says, without it")
    repository = repository_of(directory)
    heads = [head for path in witnesses for head in read_witness(path)]
    result = adopt(repository) if adopting else audit(repository, heads)
    total = f"{counted(result.revisions, 'revision')}, {counted(result.lines, 'line')} in the journal"
    answer(result, *result.findings, total)
    if result.findings:
        raise TamperingError(f"{counted(len(result.findings), 'finding')} in {repository.directory}")
