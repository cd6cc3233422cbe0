"""`backy import-diff`: make a revision of a stream that `rbd` made."""

from pathlib import Path

import click

from backy.cli.options import tags_of


@click.command("import-diff")
@click.option("--tags", metavar="TAGS", default="manual:import", show_default=True, callback=tags_of, help="Its tags.")
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(directory: Path, tags: tuple[str, ...], file: str) -> None:
    """Make a revision of a stream that was made elsewhere; FILE may be '-' for standard input.

    Streams are those of 'rbd export-diff' and 'rbd merge-diff'. One that begins with a snapshot needs a revision of
    that: the one that the snapshot 'backy-ID' is named for, or one that was imported from a stream that ends with it.
    All of the stream is checked before anything is made of it; then it is stored and verified as a backup is. A stream
    from a pipe takes up as much space in the repository meanwhile.
    """
    # Imported late: `backy --help` must not pay for it.
    from backy.cli.progress import steps
    from backy.importing import import_image
    from backy.reading import open_repository
    from backy_import_diff.stream import opened_stream

    repository = open_repository(directory).job.directory
    # A pipe's content is kept beside the chunks, where there has to be space for it in any case.
    with opened_stream(file, repository) as stream, steps() as show:
        revision = import_image(repository, stream, tags, show)
    click.echo(f"{revision.id} {revision.verification}")
