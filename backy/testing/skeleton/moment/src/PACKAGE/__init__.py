"""NAME as a moment for backy: what the entry point names.

Configuration: `flag`, a file that is there while the writers shall rest; `limit`, how long they do at most.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from backy.api import Config, Moment
from backy.config import Duration, typed
from backy.hookspecs import hookimpl

from PACKAGE.moment import at_rest

BACKY_CONTRACT = "1.0"


class CLASSConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `moment` of a job. What users write is checked against it."""

    type: str
    flag: Path
    limit: Duration = Duration(seconds=10)


@hookimpl
def backy_moment(config: Config) -> AbstractContextManager[Moment]:
    """Make the moment from its section. Nothing happens before it is entered."""
    section = typed(config, CLASSConfig, "config.moment")
    return at_rest(section.flag, section.limit)
