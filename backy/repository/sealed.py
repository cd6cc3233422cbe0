"""JSON documents that carry their own checksum: `<id>.rev` and `<id>.state`.

The last member `digest` is the SHA-256 of all bytes before the line of that member. docs/reference/format.md describes
the files.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeVar

import msgspec

from backy.errors import DamageError

FORMAT = 3
"""Version of the repository's layout and of the documents in it."""

# SHA-256, because every standard library has it: a changed document can be noticed without backy
_SEAL = b',\n  "digest": "'
_END = b'"\n}\n'


class Document(Protocol):
    """What every sealed document says."""

    @property
    def id(self) -> str:
        """The id of the revision that it belongs to."""


Content = TypeVar("Content", bound=Document)


def encode(document: Document) -> bytes:
    """Return the content of the file."""
    return _sealed(msgspec.json.format(msgspec.json.encode(document), indent=2).removesuffix(b"\n}"))


def _sealed(body: bytes) -> bytes:
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def decode(content: bytes, kind: type[Content], name: str) -> Content:
    """Read the content of the file `name`, which begins with the id of its revision.

    Raises:
        DamageError: it is not a document of this format, was changed, or belongs to another revision.
    """
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{name} is not a file of backy 3: {error}") from error
    # compared as bytes: JSON says the same in many ways, and the seal holds for one of them
    if not isinstance(found, dict) or content != _sealed(content.rpartition(_SEAL)[0]):
        raise DamageError(f"{name} is damaged: it fails its own checksum")
    if found.get("format") != FORMAT:
        raise DamageError(f"{name} has format {found.get('format')}; this version of backy reads {FORMAT}")
    try:
        document = msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise DamageError(f"{name} is damaged: {error}") from error
    # a sound document under another name would be a second revision with the same data
    if document.id != name.rpartition(".")[0]:
        raise DamageError(f"{name} belongs to revision {document.id}; was it renamed?")
    return document
