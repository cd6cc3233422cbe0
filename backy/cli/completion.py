"""Where the repository is that a command line means, and what a shell may put in for an unfinished word of it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from backy.errors import RepositoryError
from backy.plugins.discovery import Kind, advertised
from backy.repository.revision import Revision
from backy.scheduler import DEFAULT_CONFIGURATION  # from the package itself: it imports nothing of the scheduler
from backy.text.phrases import alternatives

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def located(context: click.Context) -> Path:
    """Return the directory that -b or -j names; raises RepositoryError if there is no such job."""
    if job := str(context.meta.get("backy.job", "")):
        base, jobs = repositories(context)
        if job not in jobs:
            raise RepositoryError(f"no repository of a job '{job}' in {base}; {alternatives(job, jobs)}")
        return base / job
    return Path(context.obj or "")


def repositories(context: click.Context) -> tuple[Path, list[str]]:
    """Return the base directory of the scheduler, and the names of the repositories in it."""
    from backy.scheduler.configuration.location import load_location

    # Not the jobs of the configuration: one of them may be wrong, or be given up, and is there all the same.
    base = load_location(context.meta.get("backy.config", DEFAULT_CONFIGURATION)).base_dir
    return base, sorted(found.parent.name for found in base.glob("*/config"))


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

    directory = located(context)
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

    directory = located(context)
    if group := opened(directory):
        return [one.revision for one in group.together(trash=trash)]
    return [one for one in Records(directory).survey(trash=True)[0] if bool(one.state.forgotten) == trash]
