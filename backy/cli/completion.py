"""What a shell may put in for an unfinished word: tags, ids, types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from backy.plugins.discovery import Kind, advertised

if TYPE_CHECKING:
    from backy.repository.revision import Revision

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return those of `names` that begin with `incomplete`."""
    return [CompletionItem(name) for name in sorted({*names}) if name.startswith(incomplete)]


def revisions(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of revisions, and their tags."""
    return items([name for one in _history(context) for name in (one.id, *one.tags)], incomplete)


def tags(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the tags of the schedule and of the revisions, also behind a comma."""
    from backy.groups.group import opened
    from backy.repository.repository import Repository

    directory = context.obj or Path()
    schedule = (opened(directory) or Repository.open(directory)).config.schedule
    before = incomplete[: incomplete.rfind(",") + 1]
    names = [*(schedule or ()), *(tag for one in _history(context) for tag in one.tags)]
    return items([f"{before}{name}" for name in names], incomplete)


def trashed(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the revisions in the trash."""
    return items([one.id for one in _history(context, trash=True)], incomplete)


def names_of(kind: Kind) -> Complete:
    """Return what returns the names of the plugins of a kind."""
    return lambda _context, _parameter, incomplete: items(advertised(kind), incomplete)


def _history(context: click.Context, *, trash: bool = False) -> list[Revision]:
    from backy.groups.group import opened
    from backy.repository.records import Records

    directory = context.obj or Path()
    if group := opened(directory):
        return [one.revision for one in group.together(trash=trash)]
    return [one for one in Records(directory).survey(trash=True)[0] if bool(one.state.forgotten) == trash]
