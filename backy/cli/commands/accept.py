"""`backy accept`: say that an image was meant to shrink."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.options import revision_of
from backy.cli.revisions import answer_with
from backy.errors import RevisionNotFoundError


@click.command("accept")
@revision_of("The revision that shrank. Default: all.")
@each_disk
def command(directory: Path, specification: str | None) -> None:
    """Say that an image was meant to shrink, or to lose all data.

    The revision before has the tag 'pinned:shrunk' since then, which keeps it as long as the schedule keeps anything.
    Without the tag the revision expires by the schedule.
    """
    from backy.retention.tags import accept

    released = accept(repository_of(directory), specification)
    if not released and specification is not None:
        raise RevisionNotFoundError(f"no revision is held because of '{specification}'; 'backy status' shows the tags")
    texts = [f"{revision.id} {','.join(revision.tags)}" for revision in released] or ["No revision is held"]
    answer_with(released, *texts)
