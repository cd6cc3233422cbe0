"""`backy restore`: get an image back."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.options import revision_option


def _options(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, equals, setting in (option.partition("=") for option in value):
        if not name or not equals:
            raise click.BadParameter(f"'{name}' is not of the form NAME=VALUE")
        if name in options:
            raise click.BadParameter(f"'{name}' is given twice")
        options[name] = setting
    return options


@click.command("restore")
@revision_option
@click.option(
    "--resume", is_flag=True, help="Read TARGET, a file or a block device, and write only what is not right yet."
)
@click.option(
    "--salvage",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Go on over damaged chunks, which become zeroes, and write to FILE what could be read and what could not.",
)
@click.option("--force", is_flag=True, help="Replace what TYPE:ARGUMENT names if it is there already.")
@click.option(
    "-o",
    "--option",
    "options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_options,
    help="Tell TYPE:ARGUMENT how it shall be made or reached; may be given several times.",
)
@click.argument("target", metavar="TARGET")
@click.pass_obj
def command(
    directory: Path,
    specification: str,
    resume: bool,
    salvage: Path | None,
    force: bool,
    options: dict[str, str],
    target: str,
) -> None:
    """Write a revision to TARGET: a file, a block device, TYPE:ARGUMENT, or '-' for standard output.

    A file is made or replaced, with holes where the image has zeroes. TYPE:ARGUMENT is a place that the source TYPE
    offers, such as 'ceph-rbd:POOL/IMAGE'; what is there already is replaced only by --force. A file that has a colon
    in its name is written as './NAME'. Every chunk is checked on the way.

    A damaged chunk ends the restore, unless --salvage is given: then the exit code tells of it. FILE has the format of
    GNU ddrescue's mapfiles, in which '+' is a range that was read and '-' one that was not.
    """
    from backy.cli.progress import steps
    from backy.repository.repository import Repository
    from backy.restore.restore import Restore

    repository = Repository.open(directory)
    with steps() as show:
        Restore(
            repository,
            specification,
            target,
            resume=resume,
            salvage=salvage,
            force=force,
            options=options,
            steps=show,
        ).run()
