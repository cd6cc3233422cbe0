"""`backy attachments`: files that were kept beside an image."""

from pathlib import Path

import click

from backy.cli.options import revision_option
from backy.cli.output import answer


@click.command("attachments")
@revision_option
@click.option(
    "--into", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Write them to the folder DIR."
)
@click.option("--force", is_flag=True, help="Replace files that are in DIR already.")
def command(directory: Path, specification: str, into: Path | None, force: bool) -> None:
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
