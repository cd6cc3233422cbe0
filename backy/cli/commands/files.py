"""`backy files`: list and copy files of a guest."""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def _of_a_file(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the file that PATH names in a file system of a revision, with the options that choose these."""

    @revision_option
    @partition_option
    @click.argument("path", metavar="PATH")
    @click.pass_obj
    @wraps(function)
    def run(directory: Path, /, specification: str, partition: str | None, path: str, **others: Any) -> None:  # noqa: ANN401  # as click calls it
        from backy.guest.opening import found
        from backy.repository.repository import Repository

        with found(Repository.open(directory), specification, partition, path) as node:
            function(node, **others)

    return run


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
@_of_a_file
def ls(node: Node) -> None:
    """List the files in a folder: mode, size, time, and name."""
    # Sorted, as file systems give the names in the order of their hashes.
    is_folder = node.kind == stat.S_IFDIR
    for one in sorted(node.children(), key=lambda child: child.name) if is_folder else [node]:
        echo(_line(one))


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
@_of_a_file
def cat(node: Node) -> None:
    """Write a file to standard output."""
    from backy.guest.copying import stream

    stream(node, descriptor())


@command.command("cp")
@_of_a_file
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
def cp(node: Node, target: Path) -> None:
    """Copy a file or a whole folder into the folder TARGET, or under the new name TARGET.

    Nothing is overwritten. Holes, modes and times are kept; the files belong to you. Links are copied as links and not
    followed. Devices, pipes and sockets are left out.
    """
    from backy.guest.copying import Copy

    Copy().to(node, target)
