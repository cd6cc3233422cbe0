"""`backy unmount`: end a mount."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("unmount")
@click.argument("mountpoint", metavar="MOUNTPOINT", type=click.Path(path_type=Path))
def command(mountpoint: Path) -> None:
    """End what 'backy mount' shows in MOUNTPOINT.

    While somebody uses the files there it refuses and tells who that is.
    """
    from backy.mount.unmount import unmount

    unmount(mountpoint)
