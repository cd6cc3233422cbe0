"""NAME as a verifier for backy: what the entry point names.

Configuration: `every`, compare every so many chunks only; by default all.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from backy.api import Config, Verifier
from backy.config import typed
from backy.hookspecs import hookimpl

from PACKAGE.verifier import CLASSVerifier

BACKY_CONTRACT = "1.0"


class CLASSConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `verifier` of a job. What users write is checked against it."""

    type: str
    every: Annotated[int, msgspec.Meta(ge=1)] = 1


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier from its section."""
    return CLASSVerifier(typed(config, CLASSConfig, "config.verifier").every)
