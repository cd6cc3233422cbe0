"""`backy diff`: the ranges that differ between two revisions."""

from pathlib import Path

import click

from backy.cli.completion import revisions
from backy.cli.output import answered, chosen, echo
from backy.errors import DamageError
from backy.text.phrases import counted, size


@click.command("diff")
@click.argument("old", metavar="OLD", shell_complete=revisions)
@click.argument("new", metavar="NEW", shell_complete=revisions)
def command(directory: Path, old: str, new: str) -> None:
    """List the ranges of the revision NEW that differ from the revision OLD. Each is given as a SPEC.

    Each line has offset and length in bytes of a range that changed, and whether it is data or zeroes now. Pages of 4
    KiB are compared, and only chunks that differ are read. Where the images have different sizes, what OLD lacks counts
    as zeroes, and what NEW lacks is not listed.
    """
    from backy.answers.images import compare
    from backy.cli.progress import steps
    from backy.repository.repository import Repository

    repository = Repository.open(directory)
    before, after = repository.records.select(old), repository.records.select(new)
    with steps() as show, repository.image(before) as first, repository.image(after) as second:
        found = compare(first, second, show)
    # By their ids: a tag or a number may mean another revision tomorrow.
    ends = {name: chosen(one, "id", "size") for name, one in (("old", before), ("new", after))}
    extents = [one._asdict() for one in found.extents]
    if not answered({**ends, **chosen(found, "bytes", "chunks"), "damaged": len(found.damaged), "extents": extents}):
        # Columns as wide as the largest image: the offset of a byte in 9 PiB has 16 digits.
        for extent in found.extents:
            echo(f"{extent.offset:>16} {extent.length:>16} {'data' if extent.data else 'zeroes'}")
        where = f"{counted(len(found.extents), 'range')} of {counted(found.chunks, 'chunk')}"
        echo(f"{size(found.bytes)} in {where} changed")
    # Last, and as an error: the list is complete, but says too much.
    if found.damaged:
        one = "chunk can not be compared and counts as changed as a whole"
        many = "chunks can not be compared and count as changed as a whole"
        raise DamageError(f"{counted(len(found.damaged), one, many)}, the first: {found.damaged[0]}")
