"""The moment `program`: programs of the operator bring the writers to rest, and let them go on."""

import shlex
from contextlib import AbstractContextManager

import msgspec

from backy.api import Config, Moment
from backy.config import Duration, typed
from backy.errors import ConfigError
from backy.hookspecs import hookimpl
from backy.resting import resting


class ProgramConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `moment`."""

    type: str
    before: str
    after: str
    limit: Duration = Duration(seconds=10)
    freezes: bool = False


@hookimpl
def backy_moment(config: Config) -> AbstractContextManager[Moment]:
    """Make the moment from its section."""
    section = typed(config, ProgramConfig, "config.moment")
    if section.limit <= Duration(0):
        raise ConfigError("config.moment.limit: is the longest time that writers rest, such as 10s")
    before, after = _words("before", section.before), _words("after", section.after)
    return resting(before, after, section.limit, frozen=section.freezes)


def _words(key: str, text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"config.moment.{key}: {error}") from error
    if not words:
        raise ConfigError(f"config.moment.{key}: names no program")
    return words
