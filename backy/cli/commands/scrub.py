"""`backy scrub`: look at everything that is stored."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from backy.cli.output import print_json
from backy.errors import DamageError
from backy.text.phrases import counted


def _duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    from backy.config import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("scrub")
@click.argument("mode", type=click.Choice(["light", "deep"]))
@click.option("-r", "--revision", "specification", metavar="SPEC", help="Look at this revision only.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="MIB", help="Read so many MiB/s at most.")
@click.option("--max-duration", metavar="TIME", callback=_duration, help="Stop after this time, such as '2h'.")
@click.option("--json", "as_json", is_flag=True, help="Print an object with what was found.")
@click.pass_obj
def command(
    directory: Path,
    mode: str,
    specification: str | None,
    rate: float | None,
    max_duration: timedelta | None,
    as_json: bool,
) -> None:
    """Look at everything that is stored, without the source.

    'light' looks whether every file is there and may be whole; 'deep' reads all and compares it with its ids. A deep
    scrub that runs out of time goes on there the next time. Revisions that refer to damaged chunks become distrusted.
    """
    from backy.cli.progress import steps
    from backy.integrity.scrub import Scrub
    from backy.repository.repository import Repository
    from backy.repository.revision import utc_now

    repository = Repository.open(directory)
    only = None if specification is None else repository.records.select(specification)
    with steps() as show:
        speed = rate and rate * 2**20
        result = Scrub(repository, mode == "deep", utc_now, only, speed, max_duration, show).run()
    if as_json:
        content = {
            "mode": mode,
            "total": result.total,
            "chunks": result.chunks,
            "bytes": result.bytes,
            "complete": result.complete,
            "damaged": [{"chunk": error.chunk_id.hex(), "cause": error.cause} for error in result.damaged],
            "distrusted": result.distrusted,
            "problems": result.problems,
        }
        print_json(content)
    else:
        damaged = counted(len(result.damaged), "is damaged", "are damaged")
        rest = "" if result.complete else f" of {result.total}, then the time was over"
        click.echo(f"Scrubbed {counted(result.chunks, 'chunk')}{rest}: {damaged}")
    if result.damaged or result.problems:
        texts = list(result.problems)
        if result.damaged:
            texts.append(
                f"{counted(len(result.damaged), 'chunk is', 'chunks are')} damaged, the first is {result.damaged[0]}"
            )
        if result.distrusted:
            texts.append(f"distrusted for it: {', '.join(result.distrusted)}; 'backy reports list' has the evidence")
        raise DamageError("; ".join(texts))
