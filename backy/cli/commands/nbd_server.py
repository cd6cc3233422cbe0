"""`backy nbd-server`: serve a revision as a network block device."""

from pathlib import Path

import click

from backy.cli.options import cache_option, revision_option
from backy.cli.output import echoing


@click.command("nbd-server")
@revision_option
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Listen on this Unix socket; by default on one in a folder that only you get to.",
)
@click.option("--host", metavar="HOST", help="Listen on this address; 127.0.0.1 if there is only --port.")
@click.option("--port", metavar="PORT", type=click.IntRange(1, 65535), help="Listen on this port; 10809 with --host.")
@click.option("--writable", is_flag=True, help="Take writes, which are kept in a temporary file and gone at the end.")
@cache_option
def command(
    directory: Path,
    specification: str,
    socket: Path | None,
    host: str | None,
    port: int | None,
    writable: bool,
    cache: int,
) -> None:
    """Serve a revision as a network block device, so that a machine can run from it before anything is copied.

    Prints the URI for clients such as qemu, nbdcopy and nbdinfo, and serves until Ctrl-C or SIGTERM. The revision is
    never changed. There is neither a password nor encryption: listen only where everybody who can connect may read the
    disk. Needs FUSE and nbdkit. Nothing is purged meanwhile.
    """
    from backy.mount.serve import PORT, Server, serve_nbd
    from backy.repository.repository import Repository

    if socket is not None and (host is not None or port is not None):
        raise click.UsageError("--socket, or --host and --port: not both")
    # without any of these, the socket is in a folder that only this user gets to; nbdkit runs in another folder
    host = host or ("" if port is None else "127.0.0.1")
    server = Server(writable, cache * 2**20, socket and socket.absolute(), host, port or PORT)
    repository = Repository.open(directory)
    revision = repository.records.select_image(specification)
    serve_nbd(repository, revision, server, echoing())
