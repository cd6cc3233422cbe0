"""`backy init`: make a repository."""

import shlex
from pathlib import Path
from typing import Any

import click

from backy.cli.completion import names_of
from backy.cli.options import settings_option, storage_option
from backy.cli.output import answer
from backy.cli.revisions import described
from backy.plugins.discovery import Kind
from backy.text.phrases import counted


@click.command("init")
@click.argument("source_type", metavar="TYPE", required=False, shell_complete=names_of(Kind.SOURCE))
@click.argument("source", metavar="SOURCE", required=False)
@click.option("--from", "origin", metavar="TYPE:ARGUMENT", help="Make it anew of what a storage keeps.")
@storage_option("NAME[:ARGUMENT]", "How, and where, images are kept.")
@settings_option(
    "SECTION.KEY=VALUE", "A key of a section of 'config', such as 'verifier.type=sample'; may be given several times."
)
def command(
    directory: Path,
    source_type: str | None,
    source: str | None,
    origin: str | None,
    storage: str,
    settings: dict[str, dict[str, Any]],
) -> None:
    """Make a repository that backs up SOURCE.

    TYPE is the name of an installed source, such as 'file'; SOURCE is what that type takes, such as the path of an
    image. ARGUMENT is what the storage NAME takes, such as an address. 'backy plugins' lists the types. VALUE is YAML,
    as in '-o schedule.daily="{interval: 1d, keep: 7}"'. A missing directory is made. Prints what to do next.

    '--from' takes no SOURCE. It makes the directory anew whose records a storage keeps elsewhere. All its revisions can
    be restored; to back up again, write a section 'source' into its 'config'.
    """
    from backy.making.making import make_repository, rebuild_repository

    if origin is not None:
        if source_type is not None:
            raise click.UsageError("'--from' takes no SOURCE: the new repository has none")
        rebuilt = rebuild_repository(directory, origin, settings)
        revisions = rebuilt.records.survey()[0]
        text = f"Made the repository in {rebuilt.directory} anew, with {counted(len(revisions), 'revision')}"
        answer({"directory": str(rebuilt.directory), "revisions": [*map(described, revisions)]}, text)
        return
    if source_type is None or source is None:
        raise click.UsageError(f"{'SOURCE' if source_type else 'TYPE'} is missing; 'backy init --help' tells more")
    repository = make_repository(directory, source_type, source, storage, settings)
    backy = f"backy -b {shlex.quote(str(repository.directory))}"
    texts = [
        # With the whole path: the directory may have come from -b, or from where the shell happened to be.
        f"Made a repository in {repository.directory}",
        f"To back up:    {backy} backup daily",
        f"To get at it:  {backy} mount MOUNTPOINT, and every revision is a raw image for dd and other tools",
    ]
    if storage == "chunked" and _works("cow", repository.directory):
        texts.append("Files can share blocks here: '--storage cow' keeps raw images without a mount, and uncompressed")
    answer({"directory": str(repository.directory), "revisions": []}, *texts)


def _works(storage: str, directory: Path) -> bool:
    """Return whether a storage is installed and can work in a directory."""
    from backy.errors import BackyError
    from backy.making.making import try_storage

    try:
        try_storage(storage, directory)
    except (BackyError, OSError):
        return False  # the repository is made: this is no time for an error
    return True
