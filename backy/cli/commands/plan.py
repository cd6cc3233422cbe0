"""`backy plan`: estimate what a command would do."""

from pathlib import Path

import click

from backy.cli.options import revision_option
from backy.cli.output import answered, chosen, echo
from backy.cli.usage import Group
from backy.errors import DamageError
from backy.text.phrases import counted, length_of_time, local_time, size


@click.group("plan", cls=Group)
def command() -> None:
    """Estimate what a command would do, without doing it."""


@command.command("restore")
@revision_option
def restore(directory: Path, specification: str) -> None:
    """Estimate how much 'backy restore' reads and writes and how long it takes, and find chunks that it can not read.

    Checks that all files are there, and reads a few chunks to measure the speed; the target may be slower. Damage
    inside of the other files is not found: 'backy scrub deep' finds it.
    """
    import time

    from backy.answers.images import forecast
    from backy.cli.progress import steps
    from backy.repository.repository import Repository

    repository = Repository.open(directory)
    revision = repository.records.select_image(specification)
    with steps() as show, repository.image(revision) as image:
        found = forecast(image, show, time.monotonic)
    figures = {"revision": revision.id, **chosen(found, "size", "data", "stored"), "seconds": found.estimate}
    if not answered({**figures, "damaged": sorted(found.damaged)}):  # numbers of the chunks
        echo(f"Revision  {revision.id} of {local_time(revision.timestamp, zone=True)}")
        echo(f"Image     {size(found.size)}, of which {size(found.data)} are data")
        echo(f"Stored    {'not known' if found.stored is None else size(found.stored)}")
        if found.estimate is not None:
            # So few bytes may be read in no time at all by the clock.
            rate = size(int(found.sampled / max(found.seconds, 1e-6)))
            about = length_of_time(max(found.estimate, 1))
            echo(f"Estimate  {about} to read, at {rate}/s as {size(found.sampled)} were read just now")
    # An error, so that scripts notice before they rely on this restore.
    if found.damaged:
        first = min(found.damaged)
        what = f"{counted(len(found.damaged), 'chunk')} can not be restored, the first is {found.damaged[first]}"
        raise DamageError(f"{what}; 'backy restore --salvage FILE' restores the rest")
