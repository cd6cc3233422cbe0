"""Images in and out: `backy backup` and `restore`."""

import logging
import sys
from pathlib import Path
from typing import Any

import click

from backy.cli.disks import found_in, repository_of
from backy.cli.options import FILE, force_option, options_of, revision_option, tags_argument
from backy.cli.output import answer, descriptor, discard, echoing
from backy.cli.progress import steps
from backy.cli.revisions import described

log = logging.getLogger(__name__)


@click.command("backup")
@tags_argument
@force_option
@click.option("--configure", is_flag=True, hidden=True, help="Replace 'config' by standard input; for the scheduler.")
def backup(directory: Path, tags: tuple[str, ...], force: bool, configure: bool) -> None:
    """Back up the source as a new revision with TAGS.

    TAGS is one tag or several with commas between them. In a job with a schedule they are those of the schedule, or
    begin with 'manual:' and never expire. The revision is complete only when it was verified; if anything fails, it is
    removed and the older ones are as they were. Of a machine with several 'disks' all are backed up at one instant.
    """
    from backy.backup.backup import Backup
    from backy.groups.acts import backup
    from backy.repository.repository import Repository
    from backy.retention.tags import check_tags
    from backy.scheduler.jobs.repositories import configure as configured

    found = configured(directory, sys.stdin.buffer.read()) if configure else found_in(directory)
    # Before anything else: a mistyped tag is found before the source makes a snapshot.
    if not force:
        check_tags(found.config, tags)
    with steps() as show:
        if isinstance(found, Repository):
            members = {"": Backup(found, tags, steps=show).run()}
        else:
            members = {f"{name}: ": one for name, one in backup(found, tags, steps=show).members.items()}
    texts = [f"{one.id} {name}{one.verification}" for name, one in members.items()]
    try:
        answer({"revisions": [*map(described, members.values())]}, *texts)
    except OSError as error:
        # Who can not be told of it shall not make it again.
        log.warning("%s is complete, but standard output can not be written: %s", texts[0].split()[0], error.strerror)
        discard()


_SALVAGE = "Continue after damaged chunks, write zeroes for them, and list in FILE which ranges could be read."
_OPTION = "An option of TYPE:ARGUMENT, such as how it is made or reached; may be given several times."

_LISTEN = "With --live: the address of this machine where all who use the image get here, and a port; else any."


@click.command("restore")
@revision_option
@click.option("--resume", is_flag=True, help="Read TARGET, a file or a block device, and write only what differs.")
@click.option("--salvage", metavar="FILE", type=FILE, help=_SALVAGE)
@click.option("--group", "is_group", is_flag=True, help="Write a machine's disks to the folder TARGET, as DISK.img.")
@click.option("--force", is_flag=True, help="Replace a file, or what TYPE:ARGUMENT names, if it is there already.")
@click.option("--live", is_flag=True, help="Make the image in TARGET usable at once, and then fetch it from here.")
@click.option("--prepare-only", is_flag=True, help="With --live: fetch nothing, but serve it until Ctrl-C or SIGTERM.")
@click.option("--abort", is_flag=True, help="With --live: remove what an interrupted one has left.")
@click.option("--listen", metavar="ADDRESS[:PORT]", help=_LISTEN)
@click.option("--local", "listen", flag_value="127.0.0.1", help="With --live: all who use the image run here.")
@click.option("-o", "--option", "options", metavar="NAME=VALUE", multiple=True, callback=options_of, help=_OPTION)
# Text, not a path: only the restore knows whether 'ceph-rbd:vms/web1' is a file.
@click.argument("target", metavar="TARGET")
def restore(directory: Path, specification: str, target: str, is_group: bool, force: bool, **of_one: Any) -> None:  # noqa: ANN401  # what `Restore` has for one disk
    """Write a revision to TARGET: a file, a block device, TYPE:ARGUMENT, or '-' for standard output.

    A file is made, with holes where the image has zeroes. TYPE:ARGUMENT is a place that the source TYPE offers, such as
    'ceph-rbd:POOL/IMAGE'. What exists, other than a block device, is replaced only with --force, and nothing while QEMU
    has it open. Write a file that has a colon in its name as './NAME'. Every chunk is checked before it is written.

    A damaged chunk ends the restore. With --salvage it continues, and fails at its end. FILE has the format of GNU
    ddrescue's mapfiles, in which '+' is a range that was read and '-' one that was not.

    With --live, the image can be used within a second, while it is still fetched. It must not exist yet. All who open
    it fetch from here by themselves, without encryption: --listen says at which address they get here. After an
    interruption, the same command goes on.
    """
    from backy.groups.acts import restore
    from backy.groups.group import opened, require
    from backy.mount.live import LiveRestore
    from backy.restore.restore import STANDARD_OUTPUT, Restore

    is_live, abort = of_one.pop("live"), of_one.pop("abort")
    live = {name: of_one.pop(name) for name in ("prepare_only", "listen")}
    if is_live and (is_group or force or of_one.pop("resume") or of_one.pop("salvage")):
        raise click.UsageError("--live makes a new image of one disk: --group, --force, --resume, --salvage do not fit")
    if not is_live and (abort or any(live.values())):
        raise click.UsageError("--prepare-only, --abort, --listen and --local are for --live")
    if is_group:
        if any(of_one.values()):
            raise click.UsageError("--group writes whole images: --resume, --salvage and -o are for one disk")
        with steps() as show:
            restore(require(directory), specification, Path(target), force=force, steps=show)
        return
    if opened(directory):
        raise click.UsageError("this is a machine with several disks: --group restores all of them to a folder")
    repository = repository_of(directory)
    with steps() as show:
        if is_live:
            restored = LiveRestore(repository, specification, target, steps=show, ready=echoing(), **live, **of_one)
            restored.abort() if abort else restored.run()
            return
        output = descriptor() if target == STANDARD_OUTPUT else None
        # Prints nothing: with '-', standard output is the image.
        Restore(repository, specification, target, force=force, descriptor=output, steps=show, **of_one).run()
