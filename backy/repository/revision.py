"""Revisions: the record `<id>.rev`, and the choice of a revision by SPEC.

`<id>.rev` is a JSON document, which is also YAML. Its last member `digest` is the SHA-256 of all bytes before the line
of that member. docs/reference/format.md describes the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from backy.api import RevisionInfo, Statistics, Verification
from backy.errors import DamageError, RevisionNotFoundError

FORMAT = 3
"""Version of the repository's layout and of the records in it."""

# SHA-256, because every standard library has it: a changed record can be noticed without backy
_SEAL = b',\n  "digest": "'
_END = b'"\n}\n'


class Trust(StrEnum):
    """Whether a revision's stored data is believed to be sound."""

    TRUSTED = "trusted"
    """It was stored, and no damage is known."""
    DISTRUSTED = "distrusted"
    """An operator doubts it, or damage was found. Nothing is built upon it."""
    VERIFIED = "verified"
    """It was distrusted; then all of it was read and is sound."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a source at one time."""

    id: str
    timestamp: datetime
    """Start of the backup, UTC; later than that of the revision before."""
    tags: tuple[str, ...]
    """Sorted, without duplicates."""
    parent: str | None
    """Id of the revision that this one builds upon, None for a full backup."""
    storage: str
    size: int
    """Bytes of the image."""
    consistent: bool = True
    """False if the source could not halt its writers: the image is as after a power loss."""
    snapshot: str | None = None
    """Name of the source's snapshot elsewhere, if the image was imported."""
    boot: str | None = None
    """Boot id of the machine if the data was not synced. Then nothing builds upon it once the machine has stopped."""
    map_digest: str | None = None
    """The checksum at the end of `<id>.map`, in hexadecimal."""
    # the fields from here on have defaults: they are known only when the backup is complete, or later
    trust: Trust = Trust.TRUSTED
    damaged: tuple[int, ...] = ()
    """Indexes of the chunks that were found damaged and could not be repaired."""
    statistics: Statistics | None = None
    verifications: tuple[Verification, ...] = ()
    """What each verifier reported, in the order of the job."""
    format: int = FORMAT

    @property
    def info(self) -> RevisionInfo:
        """The facts that plugins and other programs get."""
        return RevisionInfo(
            id=self.id,
            timestamp=self.timestamp,
            tags=self.tags,
            parent=self.parent,
            size=self.size,
            storage=self.storage,
            trust=str(self.trust),
            snapshot=self.snapshot,
            statistics=self.statistics,
            verification=self.verification,
            verifications=self.verifications,
        )

    @property
    def verification(self) -> Verification | None:
        """What all verifiers reported, as one."""
        return Verification.together(self.verifications)

    @property
    def complete(self) -> bool:
        """Whether the backup came to its end, so that the revision can be restored."""
        return self.statistics is not None

    @property
    def suspect(self) -> bool:
        """Whether the revision is distrusted and has not been read since."""
        return self.trust is Trust.DISTRUSTED and not self.damaged


def encode(revision: Revision) -> bytes:
    """Return the content of `<id>.rev`."""
    return _sealed(msgspec.json.format(msgspec.json.encode(revision), indent=2).removesuffix(b"\n}"))


def _sealed(body: bytes) -> bytes:
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def decode(content: bytes, revision_id: str) -> Revision:
    """Read the content of `<revision_id>.rev`.

    Raises:
        DamageError: it is not a record of this format, was changed, or belongs to another id.
    """
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{revision_id}.rev is not a revision of backy 3: {error}") from error
    # compared as bytes: JSON says the same in many ways, and the seal holds for one of them
    if not isinstance(found, dict) or content != _sealed(content.rpartition(_SEAL)[0]):
        raise DamageError(f"{revision_id}.rev is damaged: it fails its own checksum")
    if found.get("format") != FORMAT:
        raise DamageError(f"{revision_id}.rev has format {found.get('format')}; this version of backy reads {FORMAT}")
    try:
        revision = msgspec.convert(found, Revision)
    except msgspec.ValidationError as error:
        raise DamageError(f"{revision_id}.rev is damaged: {error}") from error
    # a sound record under another name would be a second revision with the same data
    if revision.id != revision_id:
        raise DamageError(f"{revision_id}.rev is the record of {revision.id}; was it renamed?")
    return revision


def parse_tags(text: str) -> tuple[str, ...]:
    """Split the comma-separated TAGS of a command line; return them sorted, without duplicates.

    Raises:
        ValueError: a tag is empty or has control characters; the text names it.
    """
    tags = [tag.strip() for tag in text.split(",")]
    for tag in tags:
        if not tag:
            raise ValueError(f"a tag is empty in {text!r}; write TAG or TAG,TAG")
        if not tag.isprintable():
            raise ValueError(f"the tag {tag!r} has control characters")
    return tuple(sorted(set(tags)))


def select(history: Sequence[Revision], specification: str) -> Revision:
    """Return the revision that SPEC names.

    Tries in this order: a number (0 is the newest), a full id, `last` or `latest`, a tag (its newest revision), and
    the beginning of an id that only one revision has.

    Args:
        history: The complete revisions in order of time.
        specification: SPEC as a user wrote it.

    Raises:
        RevisionNotFoundError: SPEC names none, or it begins several ids.
    """
    newest_first = list(reversed(history))
    if not newest_first:
        raise RevisionNotFoundError(f"no revision '{specification}': the repository has no complete revision yet")
    # a number wins over a tag of digits: '-r 0' always means the newest one
    if re.fullmatch(r"\d+", specification, re.ASCII):
        return _by_number(newest_first, int(specification))
    named = [revision for revision in newest_first if specification in {revision.id, "last", "latest"}]
    tagged = [revision for revision in newest_first if specification in revision.tags]
    if found := named or tagged:
        return found[0]
    # every id begins with an empty text, which is more likely an unset variable of a script than a wish
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
    """Return the time in UTC; the clock of everything that is not given another one."""
    return datetime.now(UTC)
