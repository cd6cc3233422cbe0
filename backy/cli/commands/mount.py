"""`backy mount`: show revisions as files."""

from pathlib import Path

import click

from backy.cli.disks import tree_of
from backy.cli.options import cache_option, configuration_of
from backy.cli.output import discard


@click.command("mount")
@configuration_of(
    "Show the repositories of all jobs in this configuration of the scheduler, each in a folder of its own."
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, until Ctrl-C or SIGTERM.")
@cache_option
@click.argument("mountpoint", metavar="MOUNTPOINT", type=click.Path(path_type=Path))
def command(directory: Path, configuration: Path | None, foreground: bool, cache: int, mountpoint: Path) -> None:
    """Show every complete revision as a raw image in MOUNTPOINT, an existing folder.

    The images are read-only files named by the revisions' ids; 'last', 'by-date' and 'by-tag' have links to them. New
    revisions appear, forgotten ones vanish. Backups and purges go on meanwhile. Damaged bytes can not be read (EIO),
    all others can.

    'backy unmount MOUNTPOINT' or SIGTERM ends the mount. In the background, warnings go to the system's log, or to the
    file named by '--logfile'.
    """
    from backy.mount.serve import serve
    from backy.mount.tree import Forest, Tree

    tree: Tree | Forest
    if configuration is None:
        tree = tree_of(directory)
    else:
        # Imported only here: a mount of one repository needs no YAML.
        from backy.scheduler.configuration.configuration import load

        # By the names of jobs: a repository that does not exist yet appears after its first backup.
        tree = Forest({name: job.directory for name, job in load(configuration).jobs.items()}, tree_of)
    if not foreground:
        # libfuse detaches the descriptors that it knows of, and whoever reads a pipe from here waits for all.
        discard()
    serve(tree, mountpoint, cache=cache * 2**20, foreground=foreground)
