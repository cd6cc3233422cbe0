"""What may stand before a command or behind it: where the repository is, and how much is told."""

import copy
import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from backy.cli.completion import items, located, repositories
from backy.scheduler import DEFAULT_CONFIGURATION  # from the package itself: it imports nothing of the scheduler

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def options(*, hidden: bool = True) -> list[click.Option]:
    """Return these options. They set the directory, which `click.pass_obj` gives as well, or what `kept` returns."""

    def option(*names: str, **settings: Any) -> click.Option:  # noqa: ANN401  # as click has it
        return click.Option(names, expose_value=False, hidden=hidden, **{"callback": _keep, **settings})

    folder, file = click.Path(file_okay=False, path_type=Path), click.Path(dir_okay=False, path_type=Path)
    directory = "Directory of the repository; the current one by default."
    configuration = f"The scheduler's configuration; {DEFAULT_CONFIGURATION} by default."
    return [
        option("-b", "--backupdir", type=folder, callback=_directory, help=directory),
        option("-j", "--job", metavar="JOB", shell_complete=_jobs, help="Use the repository of JOB."),
        option("-c", "--config", type=file, metavar="FILE", help=configuration),
        option("-v", "--verbose", is_flag=True, help="Log more: what is done and why."),
    ]


def replaced(command: click.Command, wrap: Wrap, *, json: bool = False) -> click.Command:
    """Return a copy of a command, and of all below it, which takes these options, and '--json' if it answers in `json`.

    `wrap(callback)` stands for each callback. One that has a parameter `directory` is given that of the repository.
    """
    copied, offered = copy.copy(command), options()
    if json and (not isinstance(copied, click.Group) or copied.invoke_without_command):
        text = "Print an object, for programs."
        offered.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=_keep, help=text))
    # One that takes unknown options takes any word.
    taken = {name for parameter in copied.params for name in parameter.opts}
    free = [one for one in offered if not (taken & {*one.opts} or (one.hidden and copied.ignore_unknown_options))]
    copied.params = [*copied.params, *free]
    copied.epilog = copied.epilog or "-b, -j, -c and -v may also stand here; 'backy --help' explains them."
    if isinstance(copied, click.Group):
        copied.commands = {name: replaced(nested, wrap, json=json) for name, nested in copied.commands.items()}
    elif not copied.allow_extra_args:
        copied.allow_extra_args = True
        copied.callback = copied.callback and _filled(copied.callback)
    copied.callback = copied.callback and wrap(copied.callback)
    return copied


def _filled(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback that is given the directory, and refuses words for which the command has no place."""
    # Not what it wraps: `click.pass_obj` gives the directory itself.
    wanted = {"directory"} & inspect.signature(callback, follow_wrapped=False).parameters.keys()

    @functools.wraps(callback)
    def run(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as click calls it
        context = click.get_current_context()
        context.obj = located(context)
        if not context.args:
            # An argument of that name, which a plugin's command may have, is its own.
            return callback(*arguments, **(dict.fromkeys(wanted, context.obj) | options))
        hints = {"specification": "-r names a revision", "tags": "several tags have commas between them: TAG,TAG"}
        hint = "; ".join([text for name, text in hints.items() if name in context.params])
        raise click.UsageError(f"no place for '{' '.join(context.args)}'{'; ' if hint else ''}{hint}")

    return run


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        context.meta[f"backy.{parameter.name}"] = value
        # what stands behind a command comes after the log was set up
        if parameter.name == "verbose":
            logging.getLogger().setLevel(logging.DEBUG)


def _directory(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    context.obj = value or context.obj


def _jobs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of jobs, for a shell."""
    return items(repositories(context)[1], incomplete)
