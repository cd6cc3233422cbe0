"""NAME as a storage for backy: what the entry point names.

Configuration: none yet.
"""

from __future__ import annotations

from backy.api import Config, Job, Storage
from backy.config import BareConfig, typed
from backy.hookspecs import hookimpl

from PACKAGE.storage import CLASSStorage

BACKY_CONTRACT = "1.0"


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the storage from its section, and touch no file."""
    typed(config, BareConfig, "config.storage")  # derive your own from msgspec.Struct once there are options
    return CLASSStorage(job.store)
