"""The storage `s3`: images as packs of chunks in a bucket. One prefix of a bucket is all of one repository."""

from backy.api import Config, Job, Storage
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_storages_s3.config import S3Config, section_of
from backy_storages_s3.storage import S3Storage


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    """Make the storage of `job`."""
    return S3Storage(job, typed(config, S3Config, "config.storage"))


@hookimpl
def backy_storage_config(argument: str) -> Config:
    """Turn BUCKET/PREFIX into keys of a section."""
    return section_of(argument)
