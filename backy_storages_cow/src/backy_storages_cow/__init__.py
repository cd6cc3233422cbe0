"""The storage `cow`: every revision is a raw image that shares unchanged blocks with its parent."""

from backy.api import Config, Job, Storage
from backy.config import BareConfig, typed
from backy.hookspecs import hookimpl
from backy_storages_cow.storage import CowStorage


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the storage, which has no options."""
    typed(config, BareConfig, "config.storage")
    return CowStorage(job)
