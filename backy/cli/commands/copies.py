"""Copies: `backy pull` and `push`, what they have in common, and `serve` and `promote`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backy.cli.completion import names_of, tags
from backy.cli.options import ANY_KEY, DATE, FOLDER, dry_run_option, rate_option, revision_of, storage_options, tags_of
from backy.cli.output import answer, chosen, descriptor
from backy.cli.progress import steps
from backy.errors import BackyError, ExitCode, PeerError
from backy.plugins.discovery import Kind
from backy.text.phrases import counted, size

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.cli.options import Settings
    from backy.exchange.offer import Order
    from backy.exchange.wire import Done

log = logging.getLogger(__name__)


def copying(command: Callable[..., Done]) -> Callable[..., None]:
    """Give a command the directory and an `Order` made of options; print what it returns.

    Raises:
        PeerError: a revision could not be copied.
    """

    @click.option("--tags", metavar="TAGS", callback=tags_of, shell_complete=tags, help="Those with any of TAGS.")
    @click.option("--since", type=DATE, metavar="DATE", help="Those of this day (UTC) or later.")
    @revision_of("This one; may be given several times.", "-r", "--revision", "specifications", multiple=True)
    @rate_option
    @dry_run_option
    @wraps(command)
    def run(directory: Path, tags: tuple[str, ...], since: datetime | None, **options: Any) -> None:  # noqa: ANN401  # as click calls it
        from backy.exchange.offer import Order
        from backy.system.limits import Limit

        day = since.date() if since else date.min
        kept = {name: options.pop(name) for name in ("specifications", "dry_run")}
        kept["limits"] = [Limit(rate)] if (rate := options.pop("rate")) else []
        _tell(command(directory, order=Order(tags=tags, since=day, **kept), **options), dry_run=kept["dry_run"])

    return run


def _tell(done: Done, *, dry_run: bool) -> None:
    would = "Would copy" if dry_run else "Copied"
    total = f"{would} {counted(len(done.copied), 'revision')}, {size(done.bytes)} of chunks that are not there"
    each = [*(f"{would} {one}" for one in done.copied), *(f"Not copied: {one}" for one in done.problems)]
    answer(chosen(done, "copied", "bytes", "problems"), *each, total)
    if done.problems:
        raise PeerError(f"{counted(len(done.problems), 'revision')} could not be copied: {done.problems[0]}")


@click.command("pull")
@click.argument("source", metavar="SOURCE")
@storage_options("NAME[:ARGUMENT]", "How images are kept, if the repository is a new one.", ANY_KEY)
@click.option("--configure", is_flag=True, hidden=True, help="Replace 'config' by standard input; for the scheduler.")
@copying
def pull(directory: Path, source: str, storage: str, settings: Settings, configure: bool, order: Order) -> Done:
    """Copy the revisions that SOURCE has and this repository lacks; a missing repository is made.

    SOURCE is ssh://[USER@]HOST[:PORT]/NAME, where 'backy serve --read-only' is the forced command of the key, or the
    directory of a repository. Nothing is ever removed here because it is gone there, and what was forgotten or has
    expired here comes back by -r only. Each chunk is compared with its
    id, and those that are here are not sent again, also after an interruption.
    """
    from backy.config import typed
    from backy.copies.copies import pull
    from backy.making.making import sourceless
    from backy.repository.config import JobConfig
    from backy.scheduler.jobs.repositories import configure as configured
    from backy.system.safeyaml import parse_yaml

    # not before: what is pulled tells whether it is a machine with several disks
    given = sys.stdin.buffer.read() if configure else None
    config = typed(parse_yaml(given, "standard input"), JobConfig, "config") if given else sourceless(storage, settings)
    with steps() as show:
        done = pull(directory, source, order, config=config, steps=show)
    if given is not None:
        configured(directory, given)
    return done


@click.command("push")
@click.argument("target", metavar="TARGET")
@copying
def push(directory: Path, target: str, order: Order) -> Done:
    """Copy the revisions of this repository that TARGET lacks.

    TARGET is ssh://[USER@]HOST[:PORT]/NAME, where 'backy serve --append' is the forced command of the key, so that it
    can add revisions and nothing else; or the directory of a repository, such as that on a disk in a drawer.
    """
    from backy.copies.copies import push

    with steps() as show:
        return push(directory, target, order, show)


@click.command("serve")
@click.option("--read-only", "mode", flag_value="read-only", help="Let the other side read.")
@click.option("--append", "mode", flag_value="append", help="Let the other side add revisions, and nothing else.")
@click.argument("directory", metavar="DIR", type=FOLDER)
def serve(mode: str | None, directory: Path) -> None:
    """Answer 'backy pull' or 'backy push' of another server, by standard input and output.

    DIR is a repository, or a directory below which they are. It is the forced command of a key in authorized_keys:
    'restrict,command="backy serve --read-only /srv/backy" ssh-ed25519 ...'.
    """
    from backy.copies.copies import serve
    from backy.exchange.wire import Wire

    if mode is None:
        raise click.UsageError("say what the other side may do: --read-only or --append")
    try:
        with os.fdopen(descriptor(), "wb", closefd=False) as writing:
            serve(directory, Wire(sys.stdin.buffer, writing), appending=mode == "append")
    except (BackyError, OSError) as error:
        # the other side was told: a line on standard error would be there as well, by ssh
        log.info("%s", error)
        raise click.exceptions.Exit(getattr(error, "exit_code", ExitCode.FAILED)) from error


@click.command("promote")
@click.argument("source_type", metavar="TYPE", shell_complete=names_of(Kind.SOURCE))
@click.argument("source", metavar="SOURCE")
def promote(directory: Path, source_type: str, source: str) -> None:
    """Have a copy back up SOURCE itself from now on, incrementally if the source can.

    TYPE and SOURCE are those of 'backy init'. All revisions stay. A server that comes back gets what is made here by
    'backy pull', and is the master again when its scheduler backs up again.
    """
    from backy.making.making import promote

    repository = promote(directory, source_type, source)
    answer({"directory": str(repository.directory)}, f"{repository.directory} backs up {source} from now on")
