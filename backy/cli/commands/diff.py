"""`backy diff`: what differs between two revisions."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.output import print_json
from backy.errors import DamageError
from backy.text.phrases import counted, size


@click.command("diff")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.pass_obj
def command(directory: Path, as_json: bool, old: str, new: str) -> None:
    """List what is different in the revision NEW from what it was in OLD; both are a SPEC.

    Each line has offset and length in bytes of a range that changed, and whether it is data or zeroes now. Pages of 4
    KiB are compared, and only chunks that differ are read. Where the images have different sizes, what OLD lacks counts
    as zeroes, and what NEW lacks is not listed.
    """
    from backy.cli.progress import steps
    from backy.image.difference import compare
    from backy.repository.repository import Repository

    repository = Repository.open(directory)
    before, after = repository.records.select(old), repository.records.select(new)
    with steps() as show, repository.image(before) as first, repository.image(after) as second:
        found = compare(first, second, show)
    if as_json:
        content = {
            "old": {"id": before.id, "size": before.size},
            "new": {"id": after.id, "size": after.size},
            "bytes": found.bytes,
            "chunks": found.chunks,
            "damaged": len(found.damaged),
            "extents": [{"offset": offset, "length": length, "data": data} for offset, length, data in found.extents],
        }
        print_json(content)
    else:
        for extent in found.extents:
            click.echo(f"{extent.offset:>16} {extent.length:>16} {'data' if extent.data else 'zeroes'}")
        where = f"{counted(len(found.extents), 'range')} of {counted(found.chunks, 'chunk')}"
        click.echo(f"{size(found.bytes)} in {where} changed")
    if found.damaged:
        raise DamageError(
            counted(
                len(found.damaged),
                "chunk can not be compared and counts as changed as a whole",
                "chunks can not be compared and count as changed as a whole",
            )
            + f", the first: {found.damaged[0]}"
        )
