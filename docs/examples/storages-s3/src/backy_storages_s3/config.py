"""The section `storage` of the type `s3`."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from backy.api import Config
from backy.errors import ConfigError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._=+-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._=+-]+)*")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
FORM = "BUCKET/PREFIX, such as backups/web1"


class S3Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename="kebab"):
    """The section `storage` of a job's configuration. It has no credentials: those come from the environment."""

    type: str
    bucket: str
    """The bucket, which has to be there."""
    prefix: str
    """Where in the bucket this repository has its objects. No other repository has the same one."""
    endpoint: str | None = None
    """The address of the server, such as https://rgw.example.com; None for Amazon's of the region."""
    region: str = "us-east-1"
    """The region, which most servers other than Amazon's do not care for."""
    ca: Path | None = None
    """A file with the certificate of the authority that has signed the server's, in the format PEM."""
    virtual_host: bool = False
    """Whether the bucket is a part of the server's name, and not of the path."""
    http: bool = False
    """Whether an endpoint without TLS is accepted."""
    unencrypted: bool = False
    """Whether it is understood that whoever can read the bucket can read the images."""
    single_writer: bool = False
    """Whether no lease is taken, because the server does not know conditions and nobody else writes."""
    compression: Annotated[int, msgspec.Meta(ge=1, le=19)] | Literal["none"] = 1
    """zstd level, 1 to 19, or `none`."""
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """Read the versions that the bucket has kept from before this time, and write nothing."""

    def __post_init__(self) -> None:
        """Refuse names that no bucket can have, and what is not safe unless it is asked for."""
        if not _BUCKET.fullmatch(self.bucket):
            raise ValueError(f"{self.bucket!r} can be no bucket; name it as 'bucket'")
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(
                f"{self.prefix!r} can be no prefix: it has names of letters, digits and ._=+- with / between"
            )
        if self.endpoint is not None and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError("the endpoint is an address without a path, such as https://rgw.example.com:7480")
        if self.endpoint is not None and self.endpoint.startswith("http:") and not self.http:
            raise ValueError("the endpoint has no TLS: use https, or add 'http: true' if nobody else sees that network")
        if not self.unencrypted:
            raise ValueError(
                "chunks leave this machine as plaintext: whoever can read the bucket can read the images; "
                "add 'unencrypted: true' if that is as it should be"
            )

    @property
    def address(self) -> str:
        """Where the objects are, for people and for telling two stores apart."""
        return f"{self.endpoint or f'https://s3.{self.region}.amazonaws.com'}/{self.bucket}/{self.prefix}"


def section_of(argument: str) -> Config:
    """Turn BUCKET/PREFIX into keys of a section; raises ConfigError."""
    bucket, slash, prefix = argument.removeprefix("//").partition("/")
    prefix = prefix.rstrip("/")
    if not slash or not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"the storage 's3' takes {FORM}, and not {argument!r}")
    return {"bucket": bucket, "prefix": prefix}
