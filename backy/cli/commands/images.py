"""Ways to an image: `backy mount`, `unmount`, `nbd-server`, `find` and `attachments`."""

from pathlib import Path
from typing import Any

import click

from backy.cli.disks import repository_of
from backy.cli.options import FOLDER, cache_option, configuration_of, revision_option
from backy.cli.output import answer, discard, echoing


@click.command("mount")
@configuration_of("Show the repositories of all jobs in this configuration of the scheduler, each in its own folder.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, until Ctrl-C or SIGTERM.")
@cache_option
@click.argument("mountpoint", metavar="MOUNTPOINT", type=click.Path(path_type=Path))
def mount(directory: Path, configuration: Path | None, foreground: bool, cache: int, mountpoint: Path) -> None:
    """Show every complete revision as a raw image in MOUNTPOINT, an existing folder.

    The images are read-only files named by the revisions' ids; 'last', 'by-date' and 'by-tag' have links to them. New
    revisions appear, forgotten ones vanish. Backups and purges go on meanwhile. Damaged bytes can not be read (EIO),
    all others can.

    'backy unmount MOUNTPOINT' or SIGTERM ends the mount. In the background, warnings go to the system's log, or to the
    file named by '--logfile'.
    """
    from backy.mount.serve import serve
    from backy.mount.tree import Forest, tree_of

    if configuration is None:
        tree = tree_of(directory)
    else:
        # Imported only here: a mount of one repository needs no YAML.
        from backy.scheduler.configuration.configuration import load

        # By the names of jobs: a repository that does not exist yet appears after its first backup.
        tree = Forest({job.directory.name: job.directory for job in load(configuration).jobs.values()})
    if not foreground:
        # libfuse detaches the descriptors that it knows of, and whoever reads a pipe from here waits for all.
        discard()
    serve(tree, mountpoint, cache=cache * 2**20, foreground=foreground)


@click.command("unmount")
@click.argument("mountpoint", metavar="MOUNTPOINT", type=click.Path(path_type=Path))
def unmount(mountpoint: Path) -> None:
    """End the mount that 'backy mount' made at MOUNTPOINT.

    While a process or a loop device uses files there, it refuses and names it.
    """
    from backy.mount.active import unmount

    # Not checked here for being a folder: a mount whose program was killed is none.
    unmount(mountpoint)


_SOCKET = "Listen on this Unix socket; by default on one in a folder that only you get to."


@click.command("nbd-server")
@revision_option
@click.option("--socket", metavar="PATH", type=click.Path(path_type=Path), help=_SOCKET)
@click.option("--host", metavar="HOST", help="Listen on this address; 127.0.0.1 if there is only --port.")
@click.option("--port", metavar="PORT", type=click.IntRange(1, 65535), help="Listen on this port; 10809 with --host.")
@click.option("--writable", is_flag=True, help="Take writes, which are kept in a temporary file and gone at the end.")
@cache_option
def nbd_server(directory: Path, specification: str, writable: bool, cache: int, **where: Any) -> None:  # noqa: ANN401  # a path, an address and a port
    """Serve a revision as a network block device, so that a machine can run from it before anything is copied.

    Prints the URI for clients such as qemu, nbdcopy and nbdinfo, and serves until Ctrl-C or SIGTERM. The revision is
    never changed. There is neither a password nor encryption: listen only where everybody who can connect may read the
    disk. Needs FUSE and nbdkit. Nothing is purged meanwhile.
    """
    from backy.mount.serve import PORT, Server, serve_nbd

    socket, host, port = (where[name] for name in ("socket", "host", "port"))
    if socket is not None and (host is not None or port is not None):
        raise click.UsageError("--socket, or --host and --port: not both")
    # without any of these, the socket is in a folder that only this user gets to; nbdkit runs in another folder
    host = host or ("" if port is None else "127.0.0.1")
    server = Server(writable, cache * 2**20, socket and socket.absolute(), host, port or PORT)
    repository = repository_of(directory)
    serve_nbd(repository, repository.records.select_image(specification), server, echoing())


@click.command("find")
@revision_option
@click.option("--id", "only_id", is_flag=True, help="Print the revision's id instead.")
def find(directory: Path, specification: str, only_id: bool) -> None:
    """Print the absolute path of a revision's raw image.

    It is where 'backy mount' shows the revision. Without a mount, a storage that keeps raw images has it in the
    repository. In a folder of a mount, that repository is meant.
    """
    from backy.mount.active import image_path, shown_directory

    repository = repository_of(shown_directory(directory) or directory)
    # The id needs no image: it is there even if nothing shows the revision as a file.
    select = repository.records.select if only_id else repository.records.select_image
    revision = select(specification)
    path = None if only_id else image_path(repository, revision)
    answer({"revision": revision.id, "path": path and str(path)}, path or revision.id)


@click.command("attachments")
@revision_option
@click.option("--into", metavar="DIR", type=FOLDER, help="Write them to the folder DIR.")
@click.option("--force", is_flag=True, help="Replace files that are in DIR already.")
def attachments(directory: Path, specification: str, into: Path | None, force: bool) -> None:
    """List the files that belong to a revision beside its image: size in bytes, and name.

    The source gives some, such as the description of the machine, and programs that the job names the others. In the
    directory of a machine with several disks, those of all disks are listed.
    """
    from backy.groups.group import attachments, save

    files = attachments(directory, specification)
    if into is not None:
        save(files, into, force=force)
    sizes = {name: len(content) for name, content in files.items()}
    texts = [f"{size:>8} {name}" for name, size in sizes.items()]
    answer({"attachments": [{"name": name, "size": size} for name, size in sizes.items()]}, *texts)
