"""`backy files`: files of a guest, out of its image."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.options import revision_option
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
    """Get single files out of a revision, without mounting anything.

    Images are always raw; partition tables (MBR, GPT), LVM, and ext2 to ext4 and XFS are read by backy itself and never
    by the kernel, so that a hostile guest can do no harm. Journals are not replayed: what a guest wrote in the seconds
    before a backup may be missing if it was not frozen.
    """


@command.command("partitions")
@revision_option
@click.pass_obj
def partitions(directory: Path, specification: str) -> None:
    """List where in the image file systems may be: name, kind, and size."""
    from backy.guest.opening import opened
    from backy.repository.repository import Repository

    with opened(Repository.open(directory), specification) as there:
        for volume in there:
            click.echo(f"{volume.name:<8} {volume.kind or '-':<4} {size(volume.size)}")


@command.command("ls")
@revision_option
@partition_option
@path_argument
@click.pass_obj
def ls(directory: Path, specification: str, partition: str | None, path: str) -> None:
    """List a folder: mode, size, time, and name of what is in it."""
    from backy.guest.opening import found
    from backy.repository.repository import Repository

    with found(Repository.open(directory), specification, partition, path) as node:
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
    from backy.guest.opening import found
    from backy.repository.repository import Repository

    with found(Repository.open(directory), specification, partition, path) as node:
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
    from backy.guest.opening import found
    from backy.repository.repository import Repository

    with found(Repository.open(directory), specification, partition, path) as node:
        Copy().to(node, target)
