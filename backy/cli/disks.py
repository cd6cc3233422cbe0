"""Commands that are for one disk, and work on all disks of a machine as well."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backy.cli.output import TAKER, answered, echo, keep, kept, print_json
from backy.errors import BackyError, ExitCode, RepositoryError, RevisionNotFoundError

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.groups.group import Group
    from backy.repository.repository import Repository

log = logging.getLogger(__name__)


def repository_of(directory: Path) -> Repository:
    """Return the repository in a directory; raises as `Repository.open`."""
    from backy.repository.repository import Repository

    return Repository.open(directory)


def found_in(directory: Path) -> Repository | Group:
    """Return the repository in a directory, or the disks of a machine; raises as `Repository.open`."""
    from backy.groups.group import opened

    return opened(directory) or repository_of(directory)


def each_disk(command: Callable[..., None]) -> Callable[..., None]:
    """Run a command; if the directory is a machine's with several disks, of which SPEC names all, run it on each.

    What one disk does not have, but another one has, is no failure. Other errors are raised after the last disk.
    """

    @wraps(command)
    def run(directory: Path, **options: Any) -> None:  # noqa: ANN401  # as click calls it
        # here: a command that only shows its help need not load them
        from backy.groups.group import opened
        from backy.retention.tags import check_tags

        if (group := opened(directory)) is None:
            command(directory, **options)
            return
        disks, failed = group.names(), dict[str, BackyError]()
        if not disks:
            raise RepositoryError(f"{directory} has no repository of a disk yet; 'backy backup' makes them")
        # the schedule is that of the machine
        if not options.get("force", True):
            check_tags(group.config, options["tags"])
        if options.get("specification") is not None:
            chosen = group.select(options["specification"])
            options["specification"], disks = chosen.id, [*chosen.members]
        answers: dict[str, object] = {}
        for name in disks:
            keep(TAKER, partial(answers.__setitem__, name))
            if not kept("json", default=False):
                echo(f"{name}:")
            try:
                command(group.directory / name, **options)
            except BackyError as error:
                failed[name] = error
        keep(TAKER, print_json)
        answered({"disks": answers})
        _end(failed, disks)

    return run


def _end(failed: dict[str, BackyError], disks: list[str]) -> None:
    """Log the errors of disks that count, and end the command for them."""
    first = failed.get(disks[0])
    if isinstance(first, RevisionNotFoundError) and all(isinstance(failed.get(name), type(first)) for name in disks):
        raise first
    counting = {name: error for name, error in failed.items() if not isinstance(error, RevisionNotFoundError)}
    for name, error in counting.items():
        log.error("%s: %s", name, error)
    if counting:
        codes = {error.exit_code for error in counting.values()}
        # to be tried again soon, if nothing else is wrong
        raise click.exceptions.Exit(max(codes - {ExitCode.BUSY}, default=ExitCode.BUSY))
