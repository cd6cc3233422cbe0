"""Options and arguments that several commands have."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from backy.cli.completion import names_of, revisions, tags
from backy.cli.output import kept
from backy.config import Size
from backy.errors import ConfigError
from backy.plugins.discovery import Kind
from backy.repository.revision import parse_tags
from backy.scheduler import DEFAULT_CONFIGURATION  # from the package itself: it imports nothing of the scheduler

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Settings = dict[str, dict[str, Any]]
"""Values of the keys of sections of a configuration."""

FILE, FOLDER = click.Path(dir_okay=False, path_type=Path), click.Path(file_okay=False, path_type=Path)
"""Types of options with a path."""


def tags_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split TAGS at its commas; none without an option. Callback of an argument or an option.

    Raises:
        BadParameter: a tag is not valid.
    """
    return read_by(parse_tags)(_context, _parameter, value) or ()


def read_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return the callback of an option whose value `read` understands; its ValueError is a usage error."""

    def parse(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:  # noqa: ANN401  # what is read
        try:
            return None if value is None else read(value)
        except ValueError as error:
            # With the usage, and exit code 2: nothing was started.
            raise click.BadParameter(str(error)) from error

    return parse


def settings_of(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> Settings:
    """Split each SECTION.KEY=VALUE; VALUE is YAML. Callback of an option.

    Raises:
        BadParameter: one has another form, or is given twice.
    """
    # not above: nearly all commands have no such option
    from backy.system.safeyaml import parse_yaml

    settings: Settings = {}
    for name, text in _pairs(value, "SECTION.KEY=VALUE"):
        section, _, key = name.partition(".")
        if not section or not key:
            raise click.BadParameter(f"'{name}' is not of the form SECTION.KEY=VALUE")
        try:
            settings.setdefault(section, {})[key] = parse_yaml(text, repr(text))
        except ConfigError as error:
            raise click.BadParameter(f"'{name}': {error}") from error
    return settings


def options_of(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """Split each NAME=VALUE. Callback of an option; raises as `settings_of`."""
    return dict(_pairs(value, "NAME=VALUE"))


def _pairs(value: tuple[str, ...], form: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, equals, text in (option.partition("=") for option in value):
        if not name or not equals:
            raise click.BadParameter(f"'{name}' is not of the form {form}")
        if name in seen:
            # The last one does not win: a restore to the wrong place is worse than an error.
            raise click.BadParameter(f"'{name}' is given twice")
        seen.add(name)
        yield name, text


def revision_of(text: str, *names: str, **settings: Any) -> Decorator:  # noqa: ANN401  # as click has it
    """Return the option that names a revision, or several, with other `settings` of click."""
    names = names or ("-r", "--revision", "specification")
    return click.option(*names, metavar="SPEC", shell_complete=revisions, help=text, **settings)


_spec = "Which one: a number (0 is the newest), an id or its beginning, a tag, or 'last'."
revision_option = revision_of(_spec, default="latest", show_default=True)

wide_option = click.option("--wide", is_flag=True, help="Show all columns and whole ids, however wide that is.")

tags_argument = click.argument("tags", metavar="TAGS", callback=tags_of, shell_complete=tags)


def storage_options(form: str, text: str, keys: tuple[str, str] | None, **settings: Any) -> Decorator:  # noqa: ANN401  # as click has it
    """Return the options that name a storage in the `form` that users give, and further `keys` of 'config'.

    Args:
        form: What users give.
        text: The help for it.
        keys: The form of a key, and the help for it; None if no keys can be given.
        settings: Other settings of click for the storage.
    """
    settings = settings or {"default": "chunked", "show_default": True}
    named = click.option("--storage", metavar=form, shell_complete=names_of(Kind.STORAGE), help=text, **settings)
    more = keys and click.option("-o", "settings", metavar=keys[0], multiple=True, callback=settings_of, help=keys[1])
    return lambda command: named(more(command) if more else command)


ANY_KEY = "SECTION.KEY=VALUE", "A key of 'config', such as 'verifier.type=sample'; may be repeated."
STORAGE_KEY = "storage.KEY=VALUE", "A key of 'storage', such as 'storage.name', the folder; may be repeated."
"""The `keys` of a repository, and of a storage only."""

force_option = click.option("-f", "--force", is_flag=True, help="Take tags that the job's schedule does not have, too.")


def configuration_of(text: str, default: Callable[[], Path] | None = None) -> Decorator:
    """Return the option that names the scheduler's configuration."""
    names, shown = ("-c", "--config", "configuration"), str(DEFAULT_CONFIGURATION) if default else None
    return click.option(*names, metavar="FILE", type=FILE, default=default, show_default=shown, help=text)


configuration_option = configuration_of("The scheduler's configuration.", lambda: kept("config", DEFAULT_CONFIGURATION))


_rate = read_by(Size.from_plain)
rate_option = click.option("--rate", metavar="RATE", callback=_rate, help="Bytes a second at most, such as 20M.")

DATE = click.DateTime(["%Y-%m-%d"])
"""The type of an option that is a day."""

dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be done.")

_cache = "MiB of data to keep in memory; 256 by default."
cache_option = click.option("--cache", type=click.IntRange(min=0), metavar="MIB", default=256, help=_cache)
