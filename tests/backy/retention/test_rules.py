from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import ScheduledTag
from backy.repository.revision import Revision, Trust, Wrong
from backy.retention.rules import Expiry, Schedule, expiries
from tests.revisions import make_revision

DAY = timedelta(days=1)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DOUBTS = {
    Trust.TRUSTED: {},
    Trust.DISTRUSTED: {"distrusted": True},
    Trust.WRONG: {"wrong": Wrong((0,), NOW)},
    Trust.VERIFIED: {"verified": NOW},
}
DOUBTFUL = {Trust.DISTRUSTED, Trust.WRONG}
DAILY: Schedule = {"daily": ScheduledTag(DAY, 5)}


def made(*revisions: tuple[Any, ...]) -> list[Revision]:
    """A history of revisions: age in days, tags, what is thought of it, and days since it was pinned."""
    history = []
    for number, (age, tags, *others) in enumerate(revisions):
        trust, pinned = (*others, *(Trust.TRUSTED, None)[len(others) :])
        state = DOUBTS[trust] | {"pinned": None if pinned is None else NOW - min(pinned, age) * DAY}
        history.append(make_revision(f"revision-{number}", NOW - age * DAY, tags.split(), **state))
    return sorted(history, key=lambda revision: revision.timestamp)


def after(schedule: Schedule, history: list[Revision], now: datetime = NOW) -> list[Revision]:
    """What is left of a history once everything has expired that does."""
    changed = {expiry.revision.id: expiry.remaining for expiry in expiries(schedule, history, now)}
    kept = [one.changed(tags=changed.get(one.id, one.tags)) for one in history]
    return [revision for revision in kept if revision.id not in changed or revision.tags]


def test_as_many_as_wanted_are_kept_however_old() -> None:
    history = made(*((age, "daily") for age in (100, 101, 102, 103, 104)))
    assert expiries(DAILY, history, NOW) == []


def test_more_are_kept_while_they_are_young() -> None:
    history = made(*((age, "daily") for age in (0.1, 0.2, 0.3, 0.4, 0.5, 4.9, 5.0)))
    assert expiries(DAILY, history, NOW) == []


def test_what_is_old_and_has_enough_newer_ones_expires() -> None:
    history = made(*((age, "daily") for age in (0, 1, 2, 3, 4, 5, 5.1, 6)))

    assert [expiry.revision.timestamp for expiry in expiries(DAILY, history, NOW)] == [NOW - 5.1 * DAY, NOW - 6 * DAY]
    assert [expiry.remaining for expiry in expiries(DAILY, history, NOW)] == [(), ()]


def test_a_revision_lives_until_its_last_tag_has_expired() -> None:
    schedule = DAILY | {"weekly": ScheduledTag(7 * DAY, 2)}
    history = made((40, "daily weekly"), (8, "daily weekly"), *((age, "daily") for age in range(6)))

    assert expiries(schedule, history, NOW) == [Expiry(history[1], ("weekly",)), Expiry(history[0], ("weekly",))]
    assert expiries(schedule, history, NOW)[0].lost == ("daily",)


def test_manual_tags_never_expire() -> None:
    history = made((10_000, "manual:x"), (9_000, "daily manual:"), *((age, "daily") for age in range(6)))
    assert [revision.tags for revision in after(DAILY, history)[:2]] == [("manual:x",), ("manual:",)]


def test_tags_that_the_schedule_lost_are_kept_as_long_as_its_longest() -> None:
    schedule = DAILY | {"weekly": ScheduledTag(7 * DAY, 4)}
    history = made((28.1, "former"), (28, "former"), (0, "daily"))
    assert after(schedule, history) == history[1:]


def test_a_revision_without_tags_is_removed() -> None:
    history = made((1, ""), (0, "daily"))
    assert expiries(DAILY, history, NOW) == [Expiry(history[0], ())]


def test_the_newest_trusted_revision_is_left_alone() -> None:
    history = made((300, "former"), (200, "former"), (100, "", Trust.DISTRUSTED))
    assert after(DAILY, history) == history[1:]


@pytest.mark.parametrize("trust", [Trust.TRUSTED, Trust.VERIFIED])
def test_distrusted_revisions_make_nothing_expire(trust: Trust) -> None:
    ages = [0, 1, 2, 3, 4]
    doubted = made((6, "daily"), *((age, "daily", Trust.DISTRUSTED) for age in ages))
    sound = made((6, "daily"), *((age, "daily", trust) for age in ages))

    assert after(DAILY, doubted) == doubted
    assert after(DAILY, sound) == sound[1:]


def test_no_revisions_no_expiry() -> None:
    assert expiries(DAILY, [], NOW) == []


tags = st.sets(st.sampled_from(["daily", "weekly", "former", "manual:x", "pinned:x"])).map(" ".join)
histories = st.lists(
    st.tuples(st.floats(0, 400), tags, st.sampled_from(list(Trust)), st.none() | st.floats(0, 400)), max_size=30
).map(lambda revisions: made(*revisions))
schedules = st.fixed_dictionaries(
    {
        "daily": st.builds(ScheduledTag, st.just(DAY), st.integers(1, 8)),
        "weekly": st.builds(ScheduledTag, st.just(7 * DAY), st.integers(1, 8)),
    }
)


def literally(schedule: Schedule, history: list[Revision], revision: Revision, tag: str) -> bool:
    """Whether a tag is kept, said once more in the words of the documentation."""
    longest = max(one.interval * one.keep for one in schedule.values())
    if tag not in schedule:
        since = revision.state.pinned if tag.startswith("pinned:") and revision.state.pinned else revision.timestamp
        return tag.startswith("manual:") or NOW - since <= longest
    behind = history[history.index(revision) + 1 :]
    enough = sum(tag in one.tags and one.trust not in DOUBTFUL for one in behind) >= schedule[tag].keep
    old = NOW - revision.timestamp > schedule[tag].keep * schedule[tag].interval
    return not (enough and old)


@given(schedules, histories)
def test_exactly_what_the_rule_says_is_kept(schedule: Schedule, history: list[Revision]) -> None:
    trusted = [number for number, one in enumerate(history) if one.trust not in DOUBTFUL]
    protected = history[trusted[-1] if trusted else 0 :]
    expected = []
    for revision in history:
        kept = tuple(tag for tag in revision.tags if literally(schedule, history, revision, tag))
        if revision in protected:
            expected.append(revision)
        elif kept:
            expected.append(revision.changed(tags=kept))
    assert after(schedule, history) == expected
    assert after(schedule, expected) == expected
