"""`backy unmount`: end a mount."""

from pathlib import Path

import click


@click.command("unmount")
@click.argument("mountpoint", metavar="MOUNTPOINT", type=click.Path(path_type=Path))
def command(mountpoint: Path) -> None:
    """End the mount that 'backy mount' made at MOUNTPOINT.

    While a process or a loop device uses files there, it refuses and names it.
    """
    from backy.mount.active import unmount

    # Not checked here for being a folder: a mount whose program was killed is none.
    unmount(mountpoint)
