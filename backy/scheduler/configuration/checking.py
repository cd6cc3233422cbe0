"""Checks all of a configuration, with its plugins and what it needs of the machine."""

from __future__ import annotations

from pathlib import Path

from backy.scheduler.configuration.configuration import Configuration, ConfigurationError, examine
from backy.scheduler.configuration.plugins import plugin_problems
from backy.scheduler.configuration.surroundings import Surroundings


def check(path: Path) -> tuple[Configuration, list[str]]:
    """Read the configuration and check all of it, and return it if it is sound, with what this user may not look at.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; the error has all problems.
    """
    found = examine(path)
    surroundings = Surroundings(found)
    # Also if there are problems already: users want to see all at once.
    problems = [*found.document.problems, *plugin_problems(found), *surroundings.problems()]
    if problems:
        raise ConfigurationError(path, problems)
    return found.configuration, surroundings.unknown
