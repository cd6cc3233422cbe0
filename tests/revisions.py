"""Revisions for tests that need no backup."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from backy.api import Statistics, Verification
from backy.repository.drills import Drilled
from backy.repository.revision import Record, Revision, State

_NUMBERS = itertools.count(1)


def make_revision(revision_id: str, timestamp: datetime, tags: Iterable[str] = (), **members: Any) -> Revision:
    """Make a revision of an image of 0 bytes; each is later than those made before.

    `members` are those of its record and its state.
    """
    state = {name: members.pop(name) for name in State.__struct_fields__ if name in members}
    known = {
        "seq": next(_NUMBERS),
        "timestamp": timestamp,
        "trusted_time": timestamp,
        "size": 0,
        "map_digest": "ab" * 32,
        "statistics": Statistics(duration=0.0, bytes_read=0, bytes_written=0, bytes_stored=0),
        "verifications": (Verification("full", 0, 0),),
    }
    record = Record(**{"id": revision_id, "birth_tags": tuple(sorted(tags)), **known, **members})
    return Revision.of(record, State(**{"id": revision_id, "tags": record.birth_tags, "storage": "chunked", **state}))


def variant(revision: Revision, **members: Any) -> Revision:
    """Return a revision with other members of its record, and with the same id and tags in its state."""
    state = {"id": members["id"]} if "id" in members else {}
    if "tags" in members:
        state["tags"] = members["birth_tags"] = tuple(sorted(members.pop("tags")))
    return msgspec.structs.replace(revision.changed(**state), **members)


def drilled(revision_id: str, **members: Any) -> Drilled:
    """Make the result of a drill that has reached level 2."""
    known = {"reached": 2, "level": 2, "ok": True, "type": "qemu", "seconds": 30.0, "time": datetime.now(UTC)}
    return Drilled(**{"revision": revision_id, **known, **members})
