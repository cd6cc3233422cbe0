"""The storage `chunked`: images as content-addressed chunks. Each content is stored once in a repository."""

from backy.api import Config, Job, Storage
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_storages_chunked.storage import ChunkedConfig, ChunkedStorage


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the chunk store of `job`."""
    return ChunkedStorage(job, typed(config, ChunkedConfig, "config.storage"))
