"""`backy files`: list, read and copy files of guests."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backy.api import BackyError

if TYPE_CHECKING:
    from backy_files.guest import Entry, Guest

    Opened = Callable[..., AbstractContextManager[Guest]]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_REVISION = "Which revision: a number (0 is the newest), an id or its beginning, a tag, or 'last'."
_PARTITION = "Where the file system is; needed if there are several. 'backy files partitions' lists them."


def _where(command: Callable[..., Any]) -> Any:  # noqa: ANN401  # a click command, once it is one
    """Give a command the options that name a file system, as what opens it and its name."""

    @click.option("-r", "--revision", metavar="SPEC", default="latest", show_default=True, help=_REVISION)
    @click.option("-p", "--partition", metavar="NAME", help=_PARTITION)
    @click.option("--key-file", metavar="FILE", type=_FILE, help="A file with the passphrase for LUKS.")
    @click.pass_obj
    @functools.wraps(command)
    def run(directory: Path, /, revision: str, partition: str | None, key_file: Path | None, **options: Any) -> object:  # noqa: ANN401  # as click calls it
        from backy_files.guest import opened

        return command(functools.partial(opened, directory, revision=revision, key_file=key_file), partition, **options)

    return run


@click.group("files")
def command() -> None:
    """List, read and copy single files of a guest, without root's rights and whatever file system it has.

    A virtual machine of libguestfs reads the revision, with a kernel of its own, without network and with few rights:
    a hostile guest meets nothing of this machine. Starting it takes some seconds, and longer where KVM does not work.
    Nothing is changed: a journal is replayed for this command only.
    """


@command.command("partitions")
@_where
def partitions(opened: Opened, partition: str | None) -> None:
    """List what lies where on the disk: name, kind, size and label.

    Partitions have the numbers that Linux gives them, logical volumes are GROUP/VOLUME, and 'disk' is all of the disk.
    """
    import humanize

    with opened() as guest:
        volumes = guest.volumes()
    for volume in volumes:
        size = humanize.naturalsize(volume.size, binary=True)
        _print(f"{volume.name:<12} {volume.kind or '-':<12} {size:>10} {volume.label}".rstrip())


@command.command("ls")
@_where
@click.argument("path", metavar="PATH")
def ls(opened: Opened, partition: str | None, path: str) -> None:
    """List the files in a folder: mode, size, time, and name."""
    with opened() as guest:
        guest.mount(partition)
        entries, errors = guest.entries(guest.real(path), depth=1)
    # a folder itself is first; of a file there is nothing else
    if entries and entries[0].kind != "d":
        entries = [entries[0], entries[0]._replace(path=os.fsencode(path))]
    for entry in sorted(entries[1:], key=lambda entry: entry.path):
        _print(_line(entry))
    _fail(errors)


@command.command("find")
@_where
@click.argument("path", metavar="PATH", default="/")
def find(opened: Opened, partition: str | None, path: str) -> None:
    """List the paths of all that is below a folder, one a line."""
    with opened() as guest:
        guest.mount(partition)
        entries, errors = guest.entries(guest.real(path))
    for found in sorted(os.fsdecode(entry.path) for entry in entries if entry.path):
        _print(f"{path.rstrip('/')}/{found}")
    _fail(errors)


@command.command("cat")
@_where
@click.argument("path", metavar="PATH")
def cat(opened: Opened, partition: str | None, path: str) -> None:
    """Write a file to standard output."""
    from backy_files.copying import write

    output = sys.stdout.fileno()  # not 1, which leads to standard error
    with opened(output) as guest:
        guest.mount(partition)
        write(guest, path, output)


@command.command("cp")
@_where
@click.option("--preserve", is_flag=True, help="Keep extended attributes (those that begin with 'user.'), too.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
def cp(opened: Opened, partition: str | None, preserve: bool, paths: tuple[str, ...], target: Path) -> None:
    """Copy files and whole folders into the folder TARGET, or one under the new name TARGET.

    Nothing is overwritten. Holes, modes, times and links between the files are kept; the files belong to you. Symbolic
    links are copied as links. Devices, pipes and sockets are left out, and told. What can not be copied is told at the
    end, with exit code 1; the rest is there.
    """
    from backy_files.copying import copy, place

    into = target.is_dir()
    if len(paths) > 1 and not into:
        raise BackyError(f"{target} is no folder: several files can only be copied into one")
    problems = []
    with place(target if into else target.absolute().parent) as made, opened(made.descriptor) as guest:
        guest.mount(partition)
        for path in paths:
            name = path.rstrip("/").rpartition("/")[2] if into else target.name
            try:
                problems += copy(guest, path, made, name, preserve=preserve)
            except BackyError as error:
                problems.append(str(error))
    _fail(problems)


@command.command("diff")
@_where
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def diff(opened: Opened, partition: str | None, old: str, new: str) -> None:
    """List the files that changed from one revision to another: '+' is new, '-' is gone, and '!' differs.

    A file differs if its kind, mode, owner, size or time does, or if the guest's kernel has noted another change.
    """
    states, errors = [], []
    for revision in (old, new):
        with opened(revision=revision) as guest:
            guest.mount(partition)
            entries, failed = guest.entries("/")
        states.append({os.fsdecode(entry.path): entry.state for entry in entries})
        errors += failed
    before, after = states
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            _print(f"{'+' if path not in before else '-' if path not in after else '!'} /{path}")
    _fail(errors)


@command.command("shell")
@click.option("-r", "--revision", metavar="SPEC", default="latest", show_default=True, help=_REVISION)
@click.option("-p", "--partition", metavar="NAME", help=_PARTITION)
@click.pass_context
def open_shell(context: click.Context, revision: str, partition: str | None) -> None:
    """Open guestfish on a revision, read-only, with a file system mounted that it shows as '/'."""
    from backy_files.guest import shell

    context.exit(shell(context.obj, revision, partition))


def _line(entry: Entry) -> str:
    try:
        time = datetime.fromtimestamp(float(entry.modified)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        time = "?"  # a guest may write years that Python does not have
    link = f" -> {os.fsdecode(entry.target)}" if entry.kind == "l" else ""
    return f"{entry.mode} {entry.size:>14} {time:>19} {os.fsdecode(entry.path)}{link}"


def _plain(text: str) -> str:
    """Write out what could control a terminal: names are a guest's."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _print(text: str) -> None:
    click.echo(_plain(text))


def _fail(problems: list[str]) -> None:
    """Tell what failed, and fail; do nothing if nothing did."""
    for problem in problems[:-1]:
        click.echo(_plain(problem), err=True)
    if problems:
        raise BackyError(_plain(problems[-1]))
