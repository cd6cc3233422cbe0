"""`backy files`: list, read and copy files of guests."""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click

from backy.api import BackyError
from backy_files.guest import Guest, copy, opened, shown

Opened = Callable[..., AbstractContextManager[Guest]]
Told = tuple[str | bytes, list[str]]
"""What a command prints, and its problems."""
log = logging.getLogger(__name__)
_LINE = r"sed -z 's/\n/\\n/g' | tr '\0' '\n'"
"""Makes a line of each name, whatever is in it."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_REVISION = "Which revision: a number (0 is the newest), an id or its beginning, a tag, or 'last'."
_PARTITION = "Where the file system is; needed if there are several. 'backy files partitions' lists them."


def _reading(command: Callable[..., Told | None]) -> Any:  # noqa: ANN401  # a click command, once it is one
    """Give a command the options that name a file system, as what opens it, and print what it returns."""

    @click.option("-r", "--revision", metavar="SPEC", default="latest", show_default=True, help=_REVISION)
    @click.option("-p", "--partition", metavar="NAME", help=_PARTITION)
    @click.option("--key-file", metavar="FILE", type=_FILE, help="A file with the passphrase for LUKS.")
    @click.pass_obj
    @functools.wraps(command)
    def run(directory: Path, /, **options: Any) -> None:  # noqa: ANN401  # as click calls it
        where = {name: options.pop(name) for name in ("revision", "partition", "key_file")}
        printed, problems = command(functools.partial(opened, directory, **where), **options) or ("", [])
        click.echo(_plain(os.fsdecode(printed), "\n"), nl=False)
        for problem in problems[:-1]:
            log.error("%s", problem)
        if problems:
            raise BackyError(problems[-1])

    return run


def _plain(text: str, lines: str = "") -> str:
    """Write out what could control a terminal, but for `lines`: names are a guest's."""
    return "".join(one if one.isprintable() or one in lines else ascii(one)[1:-1] for one in text)


@click.group("files")
def command() -> None:
    """List, read and copy single files of a guest, without root's rights and whatever file system it has.

    A virtual machine of libguestfs reads the revision, with a kernel of its own, without network and with few rights:
    a hostile guest meets nothing of this machine. Starting it takes some seconds, and longer where KVM does not work.
    Nothing is changed: a journal is replayed for this command only.
    """


@command.command("partitions")
@_reading
def partitions(opening: Opened) -> Told:
    """List what lies where on the disk: name, kind, size and label.

    'sda' is all of the disk, and its partitions have the numbers that Linux gives them. Logical volumes are
    GROUP/VOLUME.
    """
    import humanize

    told = ""
    with opening(partition="") as guest:
        for device, kind in sorted(guest.kinds.items()):
            # a subvolume has no size
            size = int(guest.run("blockdev-getsize64", device)) if device.startswith("/") else 0
            line = f"{shown(device):<20} {kind or '-':<12} {humanize.naturalsize(size, binary=True):>10} "
            told += _plain(line + guest.lines("vfs-label", device)[0]).rstrip() + "\n"
    return told, []


@command.command("ls")
@_reading
@click.argument("path", metavar="PATH")
def ls(opening: Opened, path: str) -> Told:
    """List the files in a folder: mode, size, time (UTC), and name."""
    with opening() as vm:
        # without the sum of blocks, and the numbers of links
        return vm.script(path, rf"""ls -goA --zero --time-style=+%F\ %T "$1" | sed -z '/^t/d;s/  *\S* / /' | {_LINE}""")


@command.command("find")
@_reading
@click.argument("path", metavar="PATH", default="/")
def find(opening: Opened, path: str) -> Told:
    """List the paths of all that is below a folder, one a line."""
    with opening() as vm:
        return vm.script(path, rf"""find "$1" -mindepth 1 -print0 | sort -z | cut -zc 2- | {_LINE}""")


@command.command("cat")
@_reading
@click.argument("path", metavar="PATH")
def cat(opening: Opened, path: str) -> Told:
    """Write a file to standard output."""
    with opening() as guest:
        return guest.script(path, 'if test -f "$1"; then cat "$1"; else echo no file >&2; fi', sys.stdout.buffer.write)


@command.command("cp")
@_reading
@click.option("--preserve", is_flag=True, help="Keep extended attributes (those that begin with 'user.'), too.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
def cp(opening: Opened, preserve: bool, paths: tuple[str, ...], target: Path) -> Told:
    """Copy files and whole folders into the folder TARGET, or one under the new name TARGET.

    Nothing is overwritten. Holes, modes, times and links between the files are kept; the files belong to you. Symbolic
    links are copied as links. Devices, pipes and sockets are left out, and told. What can not be copied is told at the
    end, with exit code 1; the rest is there.
    """
    if len(paths) > 1 and not target.is_dir():
        raise BackyError(f"{target} is no folder: several files can only be copied into one")
    problems = []
    with opening() as guest:
        for path in paths:
            new = target / path.rstrip("/").rpartition("/")[2] if target.is_dir() else target.absolute()
            try:
                problems += copy(guest, path, new, preserve=preserve)
            except BackyError as error:
                problems.append(str(error))
    return "", problems


@command.command("diff")
@_reading
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def diff(opening: Opened, old: str, new: str) -> Told:
    """List the files that changed from one revision to another: '+' is new, '-' is gone, and '!' differs.

    A file differs if its kind, mode, owner, size or time does, or if the guest's kernel has noted another change.
    """
    (before, errors), (after, more) = (_states(opening, revision) for revision in (old, new))
    changed = sorted({path for path, _state in before.items() ^ after.items()})
    signs = ["+" if path not in before else "-" if path not in after else "!" for path in changed]
    return "".join(_plain(f"{sign} /{path}") + "\n" for sign, path in zip(signs, changed, strict=True)), errors + more


def _states(opening: Opened, revision: str) -> tuple[dict[str, str], list[str]]:
    """Return by paths what changes if a file is changed, and errors."""
    # of a folder not that there is something new in it
    script = r"find . -type d -printf '%P\0%M %U %G\0' -o -printf '%P\0%M %U %G %s %T@ %C@ %l\0'"
    with opening(revision=revision) as guest:
        listed, errors = guest.script("/", script)
    words = os.fsdecode(listed).split("\0")
    return dict(zip(words[::2], words[1::2], strict=False)), errors


@command.command("mount")
@_reading
@click.argument("mountpoint", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
def mount(opening: Opened, mountpoint: Path) -> None:
    """Show a file system in DIR, an empty folder, until 'backy files unmount'. Nothing can be written there.

    If root calls, modes and owners of the guest's files hold for users of this machine.
    """
    if any(mountpoint.iterdir()) or mountpoint.is_mount():
        raise BackyError(f"{mountpoint} is not empty")
    waiting, ready = os.pipe()
    if os.fork():
        os.close(ready)
        raise click.exceptions.Exit(not os.read(waiting, 1))
    rights = "ro,allow_other,default_permissions" if os.geteuid() == 0 else "ro"
    with opening(mountpoint=mountpoint.resolve()) as guest:
        guest.run("mount-local", ".", "readonly:true", f"options:{rights}")
        # what waits may end, and this goes on without its terminal
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2, sys.stdout.fileno()):
            os.dup2(null, descriptor, inheritable=False)
        os.write(ready, b"!")
        guest.patience = None
        guest.run("mount-local-run")


@command.command("unmount")
@click.argument("mountpoint", metavar="DIR", type=click.Path(path_type=Path))
def unmount(mountpoint: Path) -> None:
    """End what 'backy files mount' shows in DIR."""
    click.get_current_context().exit(subprocess.run(["fusermount", "-u", str(mountpoint)], check=False).returncode)  # noqa: S603, S607  # no shell


@command.command("shell")
@_reading
def shell(opening: Opened) -> None:
    """Let guestfish run commands on a revision, read-only, with a file system mounted that it shows as '/'.

    'help' lists the commands. Ctrl-D ends the shell.
    """
    import readline  # noqa: F401  # input() uses it, if it knows the output as well

    prompt = "><fs> " if sys.stdin.isatty() else ""
    with redirect_stdout(os.fdopen(os.dup2(sys.stdout.fileno(), 1), "w")), opening() as guest, suppress(EOFError):
        while (line := input(prompt)) not in {"exit", "quit"}:
            try:
                click.echo(_plain(os.fsdecode(guest.type(f"-{line}" if line else "")), "\n\t"), nl=False)
            except BackyError as error:
                if not prompt:
                    raise
                log.error("%s", error)  # noqa: TRY400  # where it was raised does not matter
