"""`backy upgrade`: from backy 2 to backy 3."""

from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("upgrade")
@click.option("--storage", metavar="NAME", default="chunked", show_default=True, help="How images are kept.")
@click.option("--dry-run", is_flag=True, help="Change nothing, only tell what would be done, and the space it takes.")
@click.option("--reclaim", is_flag=True, help="Remove each old revision once the new one was compared: no way back.")
@click.option("--finish", is_flag=True, help="Remove what backy 2 had, which 'backy-2' has until then.")
@click.option("--all", "every", is_flag=True, help="All repositories of a scheduler, one after the other.")
@click.option("-c", "--config", "conf", type=_FILE, default="/etc/backy.conf", show_default=True, help="For '--all'.")
@click.option("--rewrite", "old", metavar="FILE", type=_FILE, help="Write a scheduler's configuration anew, no more.")
@click.pass_obj
def command(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    folder: Path, storage: str, dry_run: bool, reclaim: bool, finish: bool, every: bool, conf: Path, old: Path | None
) -> None:
    """Make a repository of backy 2 into one of backy 3, with all its revisions.

    Revisions keep their ids, times, tags and trust, and each is compared with what backy 2 had. There must be room for
    the old files and the new ones. It can be interrupted at any time, and goes on when it is called again. What backy 2
    had is left in the folder 'backy-2', which works as before, until '--finish'.

    '--reclaim' is for a disk without that room: what backy 2 had of a revision is removed as soon as the new one is
    there. From the first one on, there is no way back to backy 2.
    """
    # Imported late: `backy --help` must not pay for it.
    from backy_upgrade.farm import Places
    from backy_upgrade.rewrite import rewrite_file
    from backy_upgrade.upgrade import Upgrade, one_by_one, preview

    if (finish and (dry_run or reclaim)) or (old and (finish or reclaim or every)):
        raise click.UsageError("these options are for different things: give one of them")

    def act(places: Places) -> str:
        if finish:
            return places.finish()
        if not places.is_old:
            return f"{places.top.name} is a repository of backy 3"
        return preview(places, storage) if dry_run else Upgrade(places, storage, reclaim).run()

    if old:
        click.echo(rewrite_file(old, dry_run=dry_run))
    else:
        click.echo(one_by_one(conf, act) if every else act(Places(folder)))
