"""Checks all of a configuration, with its plugins and what it needs of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from backy.scheduler.configuration.configuration import Configuration, ConfigurationError, examine
from backy.scheduler.configuration.plugins import PluginCheck
from backy.scheduler.configuration.surroundings import Surroundings


class Checked(NamedTuple):
    """A configuration in which nothing wrong was found."""

    configuration: Configuration
    unknown: tuple[str, ...]
    """What this user may not look at."""


def check(path: Path) -> Checked:
    """Read the configuration and check all of it, and return it if it is sound.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; the error has all problems.
    """
    found = examine(path)
    surroundings = Surroundings(found)
    # Also if there are problems already: users want to see all at once.
    problems = [*found.document.problems, *PluginCheck(found).problems(), *surroundings.problems()]
    if problems:
        raise ConfigurationError(path, problems)
    return Checked(found.configuration, tuple(surroundings.unknown))
