"""`backy verify`: check all chunks of distrusted revisions."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.output import echo
from backy.repository.revision import Revision


@click.command("verify")
@click.option("-r", "--revision", "specification", metavar="SPEC", help="Verify this revision only.")
@each_disk
def command(directory: Path, specification: str | None) -> None:
    """Read all chunks of the distrusted revisions, or of one revision, and compare each with its id.

    A sound revision becomes 'verified'; a damaged one stays or becomes 'distrusted'. One of which the source hid a
    change stays 'wrong', sound as it may be.
    """
    from backy.cli.progress import steps
    from backy.integrity.damage import verify_all

    repository = repository_of(directory)
    with steps() as show:
        found = verify_all(repository, specification, _tell, steps=show)
    # Without a word one could believe that all revisions had been read.
    if not found:
        echo("No revision is distrusted; 'backy verify -r SPEC' reads one all the same")


def _tell(judged: Revision | str) -> None:
    if isinstance(judged, str):
        # No verdict: another command removed the revision before it was read.
        click.echo(judged, err=True)
    else:
        echo(f"{judged.id} {judged.trust}")
