"""A bucket as it was at an earlier time, out of the versions that it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from backy.errors import StorageError
from backy_storages_s3.config import S3Config
from backy_storages_s3.failures import explained
from backy_storages_s3.objects import Bucket, Content, Found, Listed, bare


class Version(NamedTuple):
    """A version of an object."""

    version: str
    since: datetime
    listed: Listed


class PastBucket(Bucket):
    """The newest version of each object that is no younger than a time. That it was deleted since does not count."""

    def __init__(self, config: S3Config, at: datetime) -> None:
        super().__init__(config)
        self._at = at

    @cached_property
    def _versions(self) -> dict[str, Version]:
        found: dict[str, Version] = {}
        for name, one in self._all():
            if one.since <= self._at and (name not in found or found[name].since < one.since):
                found[name] = one
        return found

    def _all(self) -> Iterator[tuple[str, Version]]:
        """Yield all versions of all objects, without delete markers; raises StorageError."""
        from botocore.exceptions import BotoCoreError, ClientError

        config = self._config
        try:
            pages = _client(config).get_paginator("list_object_versions")
            for page in pages.paginate(Bucket=config.bucket, Prefix=f"{config.prefix}/"):
                for one in page.get("Versions", ()):
                    listed = Listed(one["Size"], bare(one["ETag"]))
                    name = one["Key"].removeprefix(f"{config.prefix}/")
                    yield name, Version(one["VersionId"], one["LastModified"], listed)
        except (BotoCoreError, ClientError) as error:
            raise explained(error, "LIST of versions", self.address) from error

    def get(self, name: str) -> Found | None:
        """Return an object as it was."""
        return self._get(name, {"version": one.version}) if (one := self._versions.get(name)) else None

    def get_range(self, name: str, start: int, end: int) -> memoryview | None:
        """Return bytes of an object as it was."""
        found = self._versions.get(name)
        return self._get_range(name, start, end, {"version": found.version}) if found else None

    def list(self, folder: str = "") -> dict[str, Listed]:
        """Return the objects that there were in a folder."""
        begin = f"{folder}/" if folder else ""
        names = [(name.removeprefix(begin), one) for name, one in self._versions.items() if name.startswith(begin)]
        return {name: one.listed for name, one in names if "/" not in name}

    def _put(self, name: str, content: Content, mode: Any) -> str | None:  # noqa: ANN401  # a type that only stubs have
        raise _past()

    def delete(self, names: Sequence[str]) -> None:
        """Refuse it."""
        raise _past()


def _past() -> StorageError:
    return StorageError("nothing is written to what was there at another time: remove the key 'at'")


def _client(config: S3Config) -> Any:  # noqa: ANN401  # boto3 has no types
    import boto3
    from botocore.config import Config

    style = Config(
        s3={"addressing_style": "virtual" if config.virtual_host else "path"},
        retries={"mode": "standard", "total_max_attempts": 6},
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=config.endpoint,
        region_name=config.region,
        config=style,
        verify=str(config.ca) if config.ca else None,
    )
