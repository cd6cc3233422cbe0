"""`backy files`: list and copy files of a guest."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.options import revision_option
from backy.cli.output import descriptor, echo
from backy.text.phrases import local_time, size

if TYPE_CHECKING:
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
    """List and copy single files of a revision, without mounting anything.

    Images are always raw. backy reads partition tables (MBR, GPT), LVM, ext2 to ext4 and XFS itself. The kernel never
    does, so a hostile guest can do no harm. Journals are not replayed: data that a guest wrote in the seconds before a
    backup may be missing if the guest was not frozen.
    """


@command.command("partitions")
@revision_option
@click.pass_obj
def partitions(directory: Path, specification: str) -> None:
    """List the places of an image that may have a file system: name, kind, and size."""
    from backy.guest.opening import opened
    from backy.repository.repository import Repository

    with opened(Repository.open(directory), specification) as there:
        # All volumes, also unknown ones: users see that backy found them and can not read them.
        for volume in there:
            echo(f"{volume.name:<8} {volume.kind or '-':<4} {size(volume.size)}")


@command.command("ls")
@revision_option
@partition_option
@path_argument
@click.pass_obj
def ls(directory: Path, specification: str, partition: str | None, path: str) -> None:
    """List the files in a folder: mode, size, time, and name."""
    from backy.guest.opening import found
    from backy.repository.repository import Repository

    with found(Repository.open(directory), specification, partition, path) as node:
        if node.kind != stat.S_IFDIR:
            echo(_line(node))
            return
        # Sorted, as file systems give the names in the order of their hashes.
        for child in sorted(node.children(), key=lambda child: child.name):
            echo(_line(child))


def _line(node: Node) -> str:
    from datetime import UTC, datetime

    # A guest may write any number there, also years that Python does not have.
    try:
        time = local_time(datetime.fromtimestamp(node.modified // 10**9, UTC))
    except (ValueError, OverflowError, OSError):
        time = "?"
    link = f" -> {node.target}" if node.kind == stat.S_IFLNK else ""
    return f"{stat.filemode(node.mode)} {node.size:>14} {time:>19} {node.name}{link}"


@command.command("cat")
@revision_option
@partition_option
@path_argument
@click.pass_obj
def cat(directory: Path, specification: str, partition: str | None, path: str) -> None:
    """Write a file to standard output."""
    from backy.guest.copying import stream
    from backy.guest.opening import found
    from backy.repository.repository import Repository

    with found(Repository.open(directory), specification, partition, path) as node:
        stream(node, descriptor())


@command.command("cp")
@revision_option
@partition_option
@path_argument
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@click.pass_obj
def cp(directory: Path, specification: str, partition: str | None, path: str, target: Path) -> None:
    """Copy a file or a whole folder into the folder TARGET, or under the new name TARGET.

    Nothing is overwritten. Holes, modes and times are kept; the files belong to you. Links are copied as links and not
    followed. Devices, pipes and sockets are left out.
    """
    from backy.guest.copying import Copy
    from backy.guest.opening import found
    from backy.repository.repository import Repository

    with found(Repository.open(directory), specification, partition, path) as node:
        Copy().to(node, target)
