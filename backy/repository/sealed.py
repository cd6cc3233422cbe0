"""JSON documents that carry their own checksum: `<id>.rev` and `<id>.state`.

The last member `digest` is the SHA-256 of all bytes before the line of that member. docs/reference/format.md describes
the files.
"""

import hashlib
from typing import Protocol, TypeVar

import msgspec

from backy.errors import DamageError

LARGEST = 64 * 2**20
"""Bytes that no document exceeds: a state may name each chunk of an image."""
FORMAT = 3
"""Version of the repository's layout and of the documents in it."""

# SHA-256, because every standard library has it: a changed document can be noticed without backy
_SEAL = b',\n  "digest": "'
_END = b'"\n}\n'
_OURS = b'\n  "format": %d,\n' % FORMAT
"""The line that tells the format in all that `encode` makes; finding it is faster than decoding twice."""


class Document(Protocol):
    """What every sealed document says."""

    @property
    def id(self) -> str:
        """The id of the revision that it belongs to."""


Content = TypeVar("Content", bound=Document)


class _Header(msgspec.Struct):
    """What documents of all formats have."""

    format: object = None


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
    # compared as bytes: JSON says the same in many ways, and the seal holds for one of them
    # before anything is decoded, which may take far more memory than the file
    if content != _sealed(content.rpartition(_SEAL)[0]):
        ours = b"{".startswith(content[:1])  # also where nothing is left
        raise DamageError(f"{name} {'is damaged: it fails its own checksum' if ours else 'is not a file of backy 3'}")
    try:
        # only a member of the document itself has a line that begins like this: no text goes over lines
        if _OURS not in content and (found := msgspec.json.decode(content, type=_Header).format) != FORMAT:
            raise DamageError(f"{name} has format {found}; this version of backy reads {FORMAT}")
        document = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{name} is damaged: {error}") from error
    # a sound document under another name would be a second revision with the same data
    if document.id != name.rpartition(".")[0]:
        raise DamageError(f"{name} belongs to revision {document.id}; was it renamed?")
    return document
