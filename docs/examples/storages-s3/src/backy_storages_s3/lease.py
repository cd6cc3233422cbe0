"""The lease: one writer at a time has a prefix of a bucket, until a time that it moves on as long as it writes."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from backy.errors import StorageError
from backy_storages_s3.cache import Cache
from backy_storages_s3.objects import Found, Objects

log = logging.getLogger(__name__)
NAME = "lease"
LENGTH = timedelta(minutes=15)


class Terms(msgspec.Struct, frozen=True):
    """The content of the object."""

    owner: str
    who: str
    """The owner's name for people."""
    until: datetime
    token: int
    """Grows with each change of the owner."""


def read(found: Found | None, address: str) -> Terms | None:
    """Read the object; None if there is none, or an operator has emptied it. Raises StorageError."""
    if found is None or not found.content:
        return None
    try:
        return msgspec.json.decode(found.content, type=Terms)
    except msgspec.DecodeError as error:
        raise StorageError(f"the lease at {address} is damaged: make sure that nobody writes, and delete it") from error


def verdict(found: Terms | None, owner: str, now: datetime) -> Literal["make", "renew", "take", "wait"]:
    """Tell what a writer may do that finds these terms."""
    if found is None:
        return "make"
    if found.owner == owner:
        return "renew"
    return "take" if found.until <= now else "wait"


class WaitError(StorageError):
    """Another writer has the lease; the text tells who."""

    def __init__(self, terms: Terms, address: str) -> None:
        until = terms.until.isoformat(sep=" ", timespec="seconds")
        super().__init__(f"{terms.who} writes to {address} until {until}: try again after that")


class Lease:
    """The lease of this writer. Safe to use from several threads."""

    def __init__(
        self,
        objects: Objects,
        cache: Cache,
        name: str,
        clock: Callable[[], datetime],
        prove: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the lease of the repository `name`; `prove` raises StorageError where there is no store."""
        self._objects = objects
        self._cache = cache
        self._who = f"{name} on {socket.gethostname()}"
        self._clock = clock
        self._prove = prove
        self._lock = threading.Lock()
        self._terms: Terms | None = None
        self._unbroken = self._lost = False

    def hold(self) -> bool:
        """Take it, or renew it if it is old; return whether nobody else has written since this writer last had it.

        Raises:
            StorageError: another writer has it; the text says who, and until when.
        """
        with self._lock:
            if self._terms is None or self._terms.until - self._clock() < LENGTH / 2:
                self._hold()
            return self._unbroken

    def _hold(self) -> None:
        if self._lost:
            raise StorageError(f"another writer has taken the lease at {self._objects.address} meanwhile; try again")
        memory = self._cache.memory
        # before the store does
        self._cache.know_owner()
        terms = Terms(self._cache.owner, self._who, self._clock() + LENGTH, max(1, memory.token))
        resumed = self._terms is None
        # nobody else has taken it if it is as this writer has left it, be its time over or not
        if memory.lease and self._note(terms, self._objects.replace(NAME, msgspec.json.encode(terms), memory.lease)):
            self._unbroken |= resumed
        elif resumed:
            self._take(terms)
        elif not self._adopted(terms):
            # what was written since is not what the other one has found
            self._lost = True
            self._hold()

    def _adopted(self, terms: Terms) -> bool:
        """Go on with what another command of this writer has made of the lease, such as one that changes tags."""
        found = self._objects.get(NAME)
        there = read(found, self._objects.address)
        if not found or not there or (there.owner, there.token) != (terms.owner, terms.token):
            return False
        self._unbroken = False
        return self._note(terms, self._objects.replace(NAME, msgspec.json.encode(terms), found.etag))

    def _take(self, terms: Terms) -> None:
        """Take it from nobody, from an earlier command of this writer, or from one whose time is over."""
        self._prove()
        for _ in range(3):
            found = self._objects.get(NAME)
            there = read(found, self._objects.address)
            decision = verdict(there, terms.owner, self._clock())
            if there and decision == "wait":
                raise WaitError(there, self._objects.address)
            terms = msgspec.structs.replace(terms, token=(there.token if there else 0) + (decision != "renew"))
            content = msgspec.json.encode(terms)
            etag = self._objects.replace(NAME, content, found.etag) if found else self._objects.create(NAME, content)
            if self._note(terms, etag):
                self._unbroken = False
                return
        raise StorageError(f"others take the lease at {self._objects.address} all the time: try again later")

    def _note(self, terms: Terms, etag: str | None) -> bool:
        if etag is None:
            return False
        self._terms = terms
        self._cache.memory.lease, self._cache.memory.token = etag, terms.token
        self._cache.save()
        return True
