"""`backy find`: the path of a revision's raw image."""

from pathlib import Path

import click

from backy.cli.options import revision_option
from backy.cli.output import answer


@click.command("find")
@revision_option
@click.option("--id", "only_id", is_flag=True, help="Print the revision's id instead.")
def command(directory: Path, specification: str, only_id: bool) -> None:
    """Print the absolute path of a revision's raw image.

    It is where 'backy mount' shows the revision. Without a mount, a storage that keeps raw images has it in the
    repository. In a folder of a mount, that repository is meant.
    """
    from backy.mount.active import image_path, shown_directory
    from backy.repository.repository import Repository

    repository = Repository.open(shown_directory(directory) or directory)
    # The id needs no image: it is there even if nothing shows the revision as a file.
    select = repository.records.select if only_id else repository.records.select_image
    revision = select(specification)
    path = None if only_id else image_path(repository, revision)
    answer({"revision": revision.id, "path": path and str(path)}, path or revision.id)
