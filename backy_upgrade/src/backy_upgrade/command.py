"""`backy upgrade`: make a repository of backy 2 into one of backy 3."""

from pathlib import Path

import click


@click.command("upgrade")
@click.option("--storage", metavar="NAME", default="chunked", show_default=True, help="How images are kept.")
@click.option("--finish", is_flag=True, help="Remove what backy 2 had, which 'backy-2' has until then.")
@click.pass_obj
def command(directory: Path, storage: str, finish: bool) -> None:
    """Make a repository of backy 2 into one of backy 3, with all its revisions.

    Revisions keep their ids, times, tags and trust, and each is compared with what backy 2 had. There must be room for
    the old files and the new ones. It can be interrupted at any time, and goes on when it is called again. What backy 2
    had is left in the folder 'backy-2', which works as before, until '--finish'.
    """
    # Imported late: `backy --help` must not pay for it.
    from backy.cli.progress import steps
    from backy_upgrade.farm import Places
    from backy_upgrade.upgrade import Upgrade

    places = Places(directory)
    if finish:
        with places.locked():
            places.finish()
    elif places.is_old:
        with steps() as show:
            click.echo(Upgrade(places, storage, show).run())
    else:
        click.echo(f"{places.top.name} is a repository of backy 3")
