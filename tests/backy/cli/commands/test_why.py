from __future__ import annotations

import re

import msgspec
import pytest

from backy.repository.repository import Repository
from backy.repository.revision import Wrong

DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.mark.parametrize(
    ("specification", "lines"),
    [
        ("0", ["daily until DATE: it is one of the newest 2", "weekly until DATE: it is one of the newest 2"]),
        ("2", ["daily until DATE: 2 newer ones have it, but it is younger than 2 times 1d"]),
        ("3", ["weekly until DATE: it is one of the newest 2"]),
        ("former", ["former until DATE: the schedule does not have it, and keeps nothing longer than 2w"]),
        ("manual:x", ["manual:x for ever: tags that begin with 'manual:' never expire"]),
        ("6", ["not kept: 'backy expire' removes it"]),
    ],
)
def test_why_tells_each_tags_reason(backy, scheduled: Repository, specification: str, lines: list[str]) -> None:
    revision = scheduled.records.select(specification)
    done = backy("-b", scheduled.directory, "why", "-r", specification)

    assert (done.code, done.err) == (0, "")
    assert re.sub(DATE, "DATE", done.out).splitlines() == [
        f"{revision.id} of DATE, tags: {', '.join(revision.tags)}",
        *lines,
    ]


def test_the_last_revision_of_all_is_kept_without_a_tag(backy, scheduled: Repository) -> None:
    for revision in scheduled.records.history()[1:]:
        scheduled.remove(revision.id)
    scheduled.records.write_state(scheduled.records.select("0").changed(tags=()))
    done = backy("-b", scheduled.directory, "why")

    assert done.out.splitlines()[0].endswith("tags: none")
    assert done.out.splitlines()[1:] == [
        "kept for ever: the newest revision that is not in doubt is never removed by the schedule"
    ]


def test_a_doubt_is_told(backy, scheduled: Repository) -> None:
    revision = scheduled.records.select("2")
    scheduled.records.write_state(revision.changed(wrong=Wrong((4,), revision.timestamp)))
    done = backy("-b", scheduled.directory, "why", "-r", "2")

    assert f"revision {revision.id} is wrong in 1 chunk: the source had other content, so it does not" in done.out


@pytest.mark.parametrize(
    ("keys", "cause"), [({"expire": False}, "config says 'expire: false'"), ({"schedule": None}, "has no schedule")]
)
def test_where_nothing_expires_all_is_kept_for_ever(
    backy, scheduled: Repository, keys: dict[str, object], cause: str
) -> None:
    scheduled.configure(msgspec.structs.replace(scheduled.config, **keys))
    done = backy("-b", scheduled.directory, "why", "-r", "6")

    assert (done.code, done.err) == (0, "")
    assert f"kept for ever: the repository's config {cause.removeprefix('config ')}" in done.out


def test_a_revision_that_is_not_there_is_one_line(backy, scheduled: Repository) -> None:
    done = backy("-b", scheduled.directory, "why", "-r", "nope")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
