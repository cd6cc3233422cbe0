"""`backy selftest`: test on this machine that backups survive crashes."""

from pathlib import Path

import click

from backy.cli.options import storage_option
from backy.cli.output import echo


@click.command("selftest")
@click.option(
    "--on",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,  # no default: only the file system of the repositories matters
    help="Folder on the file system to test; nothing stays in it.",
)
@storage_option("NAME", "How images are kept.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Try so many crashes of each kind besides the most dangerous ones. More take longer.",
)
def command(folder: Path, storage: str, count: int) -> None:
    """Test on this machine that backups survive crashes, in a temporary repository.

    Power losses during a backup and during a purge are simulated at many instants, with the states that they may leave
    on a disk, and calls of the operating system fail as on a full or broken disk. After each, all complete revisions
    have to read back bit by bit, and the next backup has to be right. Needs up to 200 MB in the folder, and none
    afterwards.
    """
    from backy.testing.trials import selftest

    # Each line as soon as it is known: the trials take minutes.
    for line in selftest(folder, {"type": storage}, count):
        echo(line)
