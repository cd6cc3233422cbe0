"""NAME as a command for backy: what the entry point names.

This one makes a revision of an image file, so that it works at once: put your command in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
from backy.api import Extent, Image, Snapshot, SourceError
from backy.cli.options import tags_of
from backy.cli.progress import steps
from backy.importing import import_image


@click.command("NAME")
@click.argument("tags", metavar="TAGS", callback=tags_of)
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.pass_obj
def command(directory: Path, tags: tuple[str, ...], file: Path) -> None:
    """Make a revision of the image in FILE."""
    with file.open("rb") as stream, steps() as show:
        revision = import_image(directory, CLASSImport(stream.fileno()), tags, show)
    click.echo(revision.id)


class CLASSImport:
    """An image that was taken elsewhere."""

    base = None
    """The snapshot that the image differs from. None: it is whole."""
    name = None
    """The snapshot that the image is of, which later ones may differ from."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image. One that is not whole is made of the image of its base."""
        return CLASSImage(self._descriptor)


class CLASSImage:
    """The image. Several threads read it at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def changes(self) -> None:
        """Tell what differs from the revision before, if you know it. None: everything is read."""

    def extents(self) -> Iterator[Extent]:
        """Tell where there is data. Holes are not read."""
        if self.size:
            yield Extent(0, self.size, data=True)

    def pread(self, offset: int, length: int) -> bytes:
        """Read exactly so many bytes."""
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise SourceError(f"there are {len(data)} instead of {length} bytes at {offset}")
        return data
