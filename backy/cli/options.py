"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backy.errors import ConfigError
from backy.repository.revision import parse_tags
from backy.scheduler import DEFAULT_CONFIGURATION  # from the package itself: it imports nothing of the scheduler


def tags_of(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Split TAGS at its commas. Callback of an argument or an option.

    Raises:
        BadParameter: a tag is not valid.
    """
    try:
        return parse_tags(value)
    except ValueError as error:
        # With the usage, and exit code 2: nothing was started.
        raise click.BadParameter(str(error)) from error


def settings_of(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Split each SECTION.KEY=VALUE; VALUE is YAML. Callback of an option.

    Raises:
        BadParameter: one has another form, or is given twice.
    """
    # not above: nearly all commands have no such option
    from backy.system.safeyaml import parse_yaml

    settings: dict[str, dict[str, Any]] = {}
    for name, equals, text in (option.partition("=") for option in value):
        section, dot, key = name.partition(".")
        if not (section and dot and key and equals):
            raise click.BadParameter(f"'{name}' is not of the form SECTION.KEY=VALUE")
        if key in settings.setdefault(section, {}):
            raise click.BadParameter(f"'{name}' is given twice")
        try:
            settings[section][key] = parse_yaml(text, repr(text))
        except ConfigError as error:
            raise click.BadParameter(f"'{name}': {error}") from error
    return settings


revision_option = click.option(
    "-r",
    "--revision",
    "specification",
    metavar="SPEC",
    default="latest",
    show_default=True,
    help="Which revision: a number (0 is the newest), an id or its beginning, a tag, or 'last'.",
)

tags_argument = click.argument("tags", metavar="TAGS", callback=tags_of)

force_option = click.option("-f", "--force", is_flag=True, help="Take tags that the job's schedule does not have, too.")

configuration_option = click.option(
    "-c",
    "--config",
    "configuration",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="The scheduler's configuration.",
)

cache_option = click.option(
    "--cache",
    type=click.IntRange(min=0),
    metavar="MIB",
    default=256,
    show_default=True,
    help="Keep up to so many MiB of recently read data in memory.",
)
