"""`backy files`: files of a guest, out of its image."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.options import revision_option
from backy.errors import BackyError
from backy.text.phrases import local_time, size

if TYPE_CHECKING:
    from backy.guest.disk import Volume
    from backy.guest.filesystem import Node

partition_option = click.option(
    "-p",
    "--partition",
    metavar="NAME",
    help="Where the file system is; needed if there are several. 'backy files partitions' lists them.",
)
path_argument = click.argument("path", metavar="PATH")


@click.group("files")
def command() -> None:
    """Get single files out of a revision, without mounting anything.

    Images are always raw; partition tables (MBR, GPT), LVM, and ext2 to ext4 and XFS are read by backy itself and never
    by the kernel, so that a hostile guest can do no harm. Journals are not replayed: what a guest wrote in the seconds
    before a backup may be missing if it was not frozen.
    """


@contextmanager
def _volumes(directory: Path, specification: str) -> Iterator[list[Volume]]:
    """Open a revision and find the volumes in it."""
    from backy.repository.repository import Repository

    try:
        import dissect.extfs  # to know that it is there
        import dissect.volume  # likewise
        import dissect.xfs  # noqa: F401  # to see whether it is there

        from backy.guest.disk import ImageStream, volumes
        from backy.guest.guard import limits
        from backy.image.cache import ChunkCache
        from backy.repository.open_images import OpenImages
    except ImportError as error:
        raise BackyError(f"{error}; install backy with its extra 'files'") from error
    repository = Repository.open(directory)
    revision = repository.records.select(specification)
    cache = ChunkCache(64 * 2**20)
    cache.start()
    try:
        with OpenImages(cache).open(repository, revision) as handle, limits():
            yield volumes(ImageStream(handle))
    finally:
        cache.stop()


@contextmanager
def _found(directory: Path, specification: str, partition: str | None, path: str) -> Iterator[Node]:
    """Open a revision and find a file in it."""
    from backy.guest.filesystem import find, root

    with _volumes(directory, specification) as there:
        readable = [volume for volume in there if volume.kind] if partition is None else there
        chosen = [volume for volume in readable if partition in {None, volume.name}]
        if len(chosen) != 1:
            names = ", ".join(f"{volume.name} ({volume.kind or 'unknown'})" for volume in there)
            problem = "there is more than one file system" if chosen else f"there is no file system {partition or ''}"
            raise BackyError(f"{problem.strip()}: choose one by --partition; there are {names}")
        yield find(root(chosen[0]), path)


@command.command("partitions")
@revision_option
@click.pass_obj
def partitions(directory: Path, specification: str) -> None:
    """List where in the image file systems may be: name, kind, and size."""
    with _volumes(directory, specification) as there:
        for volume in there:
            click.echo(f"{volume.name:<8} {volume.kind or '-':<4} {size(volume.size)}")


@command.command("ls")
@revision_option
@partition_option
@path_argument
@click.pass_obj
def ls(directory: Path, specification: str, partition: str | None, path: str) -> None:
    """List a folder: mode, size, time, and name of what is in it."""
    with _found(directory, specification, partition, path) as node:
        if node.kind != stat.S_IFDIR:
            click.echo(_line(node))
            return
        for child in sorted(node.children(), key=lambda child: child.name):
            click.echo(_line(child))


def _line(node: Node) -> str:
    from datetime import UTC, datetime

    from backy.guest.filesystem import printable

    try:
        time = local_time(datetime.fromtimestamp(node.modified // 10**9, UTC))
    except (ValueError, OverflowError, OSError):
        time = "?"
    link = f" -> {printable(node.target)}" if node.kind == stat.S_IFLNK else ""
    return f"{stat.filemode(node.mode)} {node.size:>14} {time:>19} {printable(node.name)}{link}"


@command.command("cat")
@revision_option
@partition_option
@path_argument
@click.pass_obj
def cat(directory: Path, specification: str, partition: str | None, path: str) -> None:
    """Write a file to standard output."""
    from backy.guest.copying import stream

    with _found(directory, specification, partition, path) as node:
        stream(node, sys.stdout.fileno())


@command.command("cp")
@revision_option
@partition_option
@path_argument
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@click.pass_obj
def cp(directory: Path, specification: str, partition: str | None, path: str, target: Path) -> None:
    """Copy a file, or a folder with all that is in it, into the folder TARGET, or under the new name TARGET.

    Nothing is overwritten. Holes, modes and times are kept; files belong to you. Links are copied as links and not
    followed. Devices and the like are left out.
    """
    from backy.guest.copying import Copy

    with _found(directory, specification, partition, path) as node:
        Copy().to(node, target)
