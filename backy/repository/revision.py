"""Revisions: the record `<id>.rev` and the history that the records of a repository make.

`<id>.rev` is a JSON document, which is YAML too. Its last member `digest` is the SHA-256 of every byte before the line
that it stands in, so that a changed record is noticed by anything that has a standard library.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from backy.errors import DamageError, RevisionNotFoundError
from backy.text.phrases import counted

FORMAT = 3
"""Version of the repository's layout and of the records in it."""

_SEAL = b',\n  "digest": "'
_END = b'"\n}\n'


class Trust(StrEnum):
    """What is thought of a revision's stored data."""

    TRUSTED = "trusted"
    """It was stored and nothing speaks against it."""
    DISTRUSTED = "distrusted"
    """An operator doubts it, or damage was found: nothing is built upon it."""
    VERIFIED = "verified"
    """It was doubted, and then all of it was read and found sound."""


class Verification(msgspec.Struct, frozen=True):
    """How far a revision was compared with its source."""

    verifier: str
    checked: int
    """Chunks compared."""
    total: int
    """Chunks of the image."""
    out_of_time: bool = False
    """Whether less was compared than was meant to be."""

    def __str__(self) -> str:
        if self.out_of_time:
            return f"verified partly, {self.checked} of {counted(self.total, 'chunk')}"
        if self.checked >= self.total:
            return "verified"
        return f"verified {self.checked} of {counted(self.total, 'chunk')}" if self.checked else "not verified"


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did. A revision is complete when it has these."""

    duration: float
    """Seconds from the start to the end, verification included."""
    bytes_read: int
    """Bytes read from the source to make the revision."""
    bytes_written: int
    """Bytes that differ from the parent, as exactly as the storage can tell."""
    bytes_stored: int
    """Sizes of the new files in the storage."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a source at one time."""

    id: str
    timestamp: datetime
    """Start of the backup, UTC; each is later than that of the revision before."""
    tags: tuple[str, ...]
    """Sorted, without duplicates."""
    parent: str | None
    """The revision that this one was made from, None for a full backup."""
    storage: str
    size: int
    """Bytes of the image."""
    consistent: bool = True
    """False if the source could not bring to rest what writes to it: the image is as after a power loss."""
    snapshot: str | None = None
    """Name that the source's snapshot has elsewhere, if the image was imported."""
    boot: str | None = None
    """Boot id of the machine if the data was not synced: the revision is built upon only until the machine stops."""
    map_digest: str | None = None
    """The checksum at the end of `<id>.map`, in hexadecimal."""
    trust: Trust = Trust.TRUSTED
    damaged: tuple[int, ...] = ()
    """Indexes of the chunks that were found damaged and could not be mended."""
    statistics: Statistics | None = None
    verification: Verification | None = None
    format: int = FORMAT

    @property
    def complete(self) -> bool:
        """Whether the revision can be restored: its backup came to its end."""
        return self.statistics is not None

    @property
    def suspect(self) -> bool:
        """Whether the revision is distrusted and has not been looked at since."""
        return self.trust is Trust.DISTRUSTED and not self.damaged


def encode(revision: Revision) -> bytes:
    """Return the content of `<id>.rev`."""
    body = msgspec.json.format(msgspec.json.encode(revision), indent=2).removesuffix(b"\n}")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def decode(content: bytes, revision_id: str) -> Revision:
    """Read the content of `<revision_id>.rev`.

    Raises:
        DamageError: it is not a record of this format, was changed, or belongs to another id.
    """
    body = content.rpartition(_SEAL)[0]
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{revision_id}.rev is not a revision of backy 3: {error}") from error
    if not isinstance(found, dict) or content != body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END:
        raise DamageError(f"{revision_id}.rev is damaged: it fails its own checksum")
    if found.get("format") != FORMAT:
        raise DamageError(f"{revision_id}.rev has format {found.get('format')}; this version of backy reads {FORMAT}")
    try:
        revision = msgspec.convert(found, Revision)
    except msgspec.ValidationError as error:
        raise DamageError(f"{revision_id}.rev is damaged: {error}") from error
    if revision.id != revision_id:
        raise DamageError(f"{revision_id}.rev is the record of {revision.id}; was it renamed?")
    return revision


def parse_tags(text: str) -> tuple[str, ...]:
    """Split the comma-separated TAGS of a command line.

    Raises:
        ValueError: a tag is empty or has control characters; the text says which.
    """
    tags = [tag.strip() for tag in text.split(",")]
    for tag in tags:
        if not tag:
            raise ValueError(f"a tag is empty in {text!r}; write TAG or TAG,TAG")
        if not tag.isprintable():
            raise ValueError(f"the tag {tag!r} has control characters")
    return tuple(sorted(set(tags)))


def select(history: Sequence[Revision], specification: str) -> Revision:
    """Find the one complete revision that SPEC stands for.

    Tried in this order: a number (0 is the newest), a full id, `last` or `latest`, a tag (its newest revision), and
    the beginning of an id that only one revision has. `history` is in order of time and complete.

    Raises:
        RevisionNotFoundError: none answers, or several ids begin so.
    """
    newest_first = list(reversed(history))
    if not newest_first:
        raise RevisionNotFoundError(f"no revision '{specification}': the repository has no complete revision yet")
    if re.fullmatch(r"\d+", specification, re.ASCII):
        return _by_number(newest_first, int(specification))
    for revision in newest_first:
        if revision.id == specification or specification in {"last", "latest"}:
            return revision
    for revision in newest_first:
        if specification in revision.tags:
            return revision
    matching = [revision for revision in newest_first if specification and revision.id.startswith(specification)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(revision.id for revision in matching)
        raise RevisionNotFoundError(f"'{specification}' is ambiguous: it begins the ids {ids}")
    raise RevisionNotFoundError(
        f"no revision '{specification}'; SPEC is a number (0 is the newest), an id or its beginning, a tag, or 'last'"
    )


def _by_number(newest_first: Sequence[Revision], number: int) -> Revision:
    if number >= len(newest_first):
        last = len(newest_first) - 1
        raise RevisionNotFoundError(f"no revision {number}: they are numbered from 0, the newest, to {last}")
    return newest_first[number]


def utc_now() -> datetime:
    """Return the time; everything that needs it is handed this function or another."""
    return datetime.now(UTC)
