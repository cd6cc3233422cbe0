"""Files that belong to a revision beside its image, such as the description of its machine: `<id>.attachments`."""

from collections.abc import Iterator

import msgspec

from backy.durable import read_file, write_file
from backy.errors import DamageError, raising
from backy.repository.journal import digest
from backy.repository.records import Records
from backy.repository.revision import Revision

LARGEST = 2**20
"""Bytes that all attachments of a revision have together at most."""
# base64 takes a third more, and names come on top
LARGEST_FILE = 2 * LARGEST
"""Bytes that no file with them exceeds."""


def write(records: Records, revision_id: str, files: dict[str, bytes]) -> str | None:
    """Write the attachments of a revision; return the digest that its record needs, None if there are none."""
    if not files:
        return None
    content = msgspec.json.encode(files) + b"\n"
    write_file(records.attachments_path(revision_id), content)
    return digest(content)


def read(records: Records, revision: Revision) -> dict[str, bytes]:
    """Return the attachments of a revision by their names; raises DamageError."""
    if revision.attachments is None:
        return {}
    path = records.attachments_path(revision.id)
    with raising(DamageError, f"{path} can not be read"):
        content = read_file(path, LARGEST_FILE)
    if digest(content) != revision.attachments:
        raise DamageError(f"{path.name} is damaged: it is not what {revision.id}.rev names")
    return msgspec.json.decode(content, type=dict[str, bytes])


def problems(records: Records, revision: Revision) -> Iterator[str]:
    """Yield why the attachments of a revision can not be had, if so."""
    try:
        read(records, revision)
    except DamageError as error:
        yield str(error)
