"""`backy verify`: check all chunks of distrusted revisions."""

from functools import partial
from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.options import revision_of
from backy.cli.output import answered, echo, kept
from backy.cli.revisions import described
from backy.repository.revision import Revision


@click.command("verify")
@revision_of("Verify this revision only.")
@each_disk
def command(directory: Path, specification: str | None) -> None:
    """Read all chunks of the distrusted revisions, or of one revision, and compare each with its id.

    A sound revision becomes 'verified'; a damaged one stays or becomes 'distrusted'. One of which the source hid a
    change stays 'wrong', sound as it may be.
    """
    from backy.cli.progress import steps
    from backy.scrubbing.scrub import verify_all

    repository = repository_of(directory)
    judged: list[Revision] = []
    try:
        with steps() as show:
            found = verify_all(repository, specification, partial(_tell, judged), steps=show)
    finally:
        # also if some are damaged, of which the error tells
        in_json = answered({"revisions": [*map(described, judged)]})
    # Without a word one could believe that all revisions had been read.
    if not found and not in_json:
        echo("No revision is distrusted; 'backy verify -r SPEC' reads one all the same")


def _tell(judged: list[Revision], one: Revision | str) -> None:
    if isinstance(one, str):
        # No verdict: another command removed the revision before it was read.
        click.echo(one, err=True)
        return
    judged.append(one)
    if not kept("json", default=False):
        echo(f"{one.id} {one.trust}")
