"""The objects below one prefix of a bucket, by name. Each is there as a whole, or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from backy.durable import SMALL, read_file
from backy.errors import StorageError
from backy_storages_s3.config import S3Config
from backy_storages_s3.failures import explained, is_missing_bucket

if TYPE_CHECKING:
    from obstore.store import S3Store

Content = bytes | bytearray | memoryview
MOST_RETRIES = 10
"""Attempts after the first one, with more and more time between them: half a minute in all."""
_BEYOND_END = re.compile(r"InvalidRange|\b416\b")
"""What the text of an error has if an object ends before a range; a number inside of a name is no such answer."""
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_LONGEST_REQUEST = timedelta(minutes=5)
"""For 64 MiB, at 2 Mbit/s."""


class Listed(NamedTuple):
    """An object in a list."""

    size: int
    etag: str


class Found(NamedTuple):
    """An object that was read."""

    content: bytes
    etag: str


class Objects(Protocol):
    """What the storage wants of a bucket. Safe to use from several threads; all methods raise StorageError."""

    address: str

    def get(self, name: str) -> Found | None:
        """Return an object; None if there is none of that name."""

    def get_range(self, name: str, start: int, end: int) -> memoryview | None:
        """Return bytes of an object, fewer at its end; None if there is none, or it ends before `start`."""

    def list(self, folder: str = "") -> dict[str, Listed]:
        """Return the objects directly in a folder, by their names there."""

    def put(self, name: str, content: Content) -> str:
        """Make or replace an object; return its ETag."""

    def create(self, name: str, content: Content) -> str | None:
        """Make an object; return its ETag, and None if there is another one of that name."""

    def replace(self, name: str, content: Content, etag: str) -> str | None:
        """Replace the object with this ETag; return the new one, and None if it has another ETag or is gone."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects, which may be gone already."""


class Bucket:
    """`Objects` of a server."""

    def __init__(self, config: S3Config) -> None:
        self.address = config.address
        self._config = config

    @cached_property
    def _store(self) -> S3Store:
        # here, and not at the top: commands that touch no object need neither the library nor credentials
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        config = self._config
        try:
            return S3Store(
                config.bucket,
                prefix=config.prefix,
                config=_place(config),
                client_options=_client(config),
                retry_config={"max_retries": MOST_RETRIES, "retry_timeout": timedelta(minutes=3)},
                credential_provider=_credentials(),
            )
        except BaseError as error:
            raise explained(error, "a connection", self.address) from error

    # reading ----------------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Found | None:
        """Return an object; None if there is none."""
        return self._get(name, None)

    def _get(self, name: str, options: Any) -> Found | None:  # noqa: ANN401  # a type that only stubs have
        import obstore

        with self._told(f"GET of {name}", may_lack=True):
            found = obstore.get(self._store, name, options=options)
            return Found(bytes(found.bytes()), bare(found.meta["e_tag"]))
        return None

    def get_range(self, name: str, start: int, end: int) -> memoryview | None:
        """Return bytes of an object, fewer at its end; None if there is none, or it ends before `start`."""
        return self._get_range(name, start, end, {})

    def _get_range(self, name: str, start: int, end: int, options: dict[str, Any]) -> memoryview | None:
        import obstore

        with self._told(f"GET of {name}", may_lack=True, beyond_end=True):
            both: Any = {"range": (start, end), **options}
            found = obstore.get(self._store, name, options=both)
            return memoryview(found.bytes())
        return None

    def list(self, folder: str = "") -> dict[str, Listed]:
        """Return the objects directly in a folder, by their names there."""
        import obstore

        with self._told(f"LIST of {folder or 'all'}"):
            objects = obstore.list_with_delimiter(self._store, folder or None)["objects"]
            return {one["path"].rpartition("/")[2]: Listed(one["size"], bare(one["e_tag"])) for one in objects}
        return {}

    # writing ----------------------------------------------------------------------------------------------------------

    def put(self, name: str, content: Content) -> str:
        """Make or replace an object in one piece; return its ETag."""
        etag = self._put(name, content, "overwrite")
        assert etag is not None, "nothing is there that could be in the way"  # noqa: S101  # for mypy
        return etag

    def create(self, name: str, content: Content) -> str | None:
        """Make an object; return its ETag, and None if there is another one of that name."""
        return self._put_if(name, content, "create")

    def replace(self, name: str, content: Content, etag: str) -> str | None:
        """Replace the object with this ETag; return the new one, and None if it has another ETag or is gone."""
        return self._put_if(name, content, {"e_tag": etag})

    def _put_if(self, name: str, content: Content, mode: Any) -> str | None:  # noqa: ANN401  # likewise
        # An answer may be lost, and the next attempt find what the first has done: what is there tells.
        try:
            etag = self._put(name, content, mode)
        except StorageError:
            with suppress(StorageError):
                if (there := self.get(name)) and there.content == content:
                    return there.etag
            raise
        if etag is None and (there := self.get(name)) and there.content == content:
            return there.etag
        return etag

    def _put(self, name: str, content: Content, mode: Any) -> str | None:  # noqa: ANN401  # likewise
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._told(f"PUT of {name}", may_lack=isinstance(mode, dict)):
            # in one piece: Ceph's gateway ignores conditions when a multipart upload is completed
            try:
                done = obstore.put(self._store, name, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                if is_missing_bucket(error):
                    raise explained(error, f"PUT of {name}", self.address) from error
                return None
            return bare(done["e_tag"])
        return None

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects, which may be gone already."""
        import obstore

        if names:
            with self._told(f"DELETE of {names[0]}", may_lack=True):
                obstore.delete(self._store, list(names))

    @contextmanager
    def _told(self, request: str, *, may_lack: bool = False, beyond_end: bool = False) -> Iterator[None]:
        """Raise StorageError for all failures, but if there is no such object and it `may_lack`."""
        from obstore.exceptions import BaseError, NotFoundError

        try:
            yield
        except (FileNotFoundError, NotFoundError) as error:
            # a list is never missing: a proxy, or an address that is no server's, says so
            if not may_lack or is_missing_bucket(error):
                raise explained(error, request, self.address) from error
        except (BaseError, ValueError) as error:
            if not (beyond_end and _BEYOND_END.search(str(error))):
                raise explained(error, request, self.address) from error


def bare(etag: str | None) -> str:
    """Return an ETag without quotes: Ceph's gateway accepts no others in conditions."""
    return (etag or "").strip('"')


def _place(config: S3Config) -> Any:  # noqa: ANN401  # likewise
    """Return the library's settings for the server."""
    place = {"region": config.region, "virtual_hosted_style_request": config.virtual_host}
    if config.endpoint is None:
        return place
    scheme, _, host = config.endpoint.partition("://")
    # the library wants the bucket in the address if it shall not add it to the path
    return place | {"endpoint": f"{scheme}://{config.bucket}.{host}" if config.virtual_host else config.endpoint}


def _client(config: S3Config) -> Any:  # noqa: ANN401  # likewise
    """Return the library's settings for connections."""
    options: dict[str, Any] = {"allow_http": config.http, "timeout": _LONGEST_REQUEST, "connect_timeout": "10s"}
    if config.ca is not None:
        try:
            options["root_certificate"] = read_file(config.ca, 16 * SMALL, follow=True)
        except OSError as error:
            raise StorageError(f"the certificate {config.ca} can not be read: {error.strerror}") from error
        # the library says nothing of a file without one, and then trusts the authorities of the system
        if _CERTIFICATE not in options["root_certificate"]:
            raise StorageError(f"{config.ca} has no certificate in the format PEM: correct the key 'ca'")
    return options


def _credentials() -> Any:  # noqa: ANN401  # likewise
    """Return what gives credentials; None if they are in the environment, where the library finds them itself."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.session.Session()
        # without any, the library's own search ends with an error that tells so
        return Boto3CredentialProvider(session) if session.get_credentials() else None
    except BotoCoreError as error:
        raise StorageError(f"the credentials can not be had: {error}") from error
