from __future__ import annotations

from datetime import timedelta

from hypothesis import given

from backy.answers.reasons import Hold, holds
from backy.config import format_duration
from backy.repository.config import ScheduledTag
from backy.repository.revision import Revision, Trust
from backy.retention.rules import Rules, Schedule, expiries, next_ideal
from tests.backy.retention.test_rules import DAILY, DAY, NOW, after, histories, made, schedules

SHIFT = timedelta(seconds=100)
LAST = Hold(None, None, "the newest revision that is not in doubt is never removed by the schedule")


def why(schedule: Schedule, history: list[Revision]) -> list[list[Hold]]:
    """Return the reasons to keep each revision of a history, in its order."""
    rules = Rules(schedule, NOW, None)
    return [holds(rules, SHIFT, one, newest=newest) for one, newest in rules.standings(history)][::-1]


def former(longest: str) -> str:
    return f"the schedule does not have it, and keeps nothing longer than {longest}"


def test_why_says_until_when_a_revision_is_kept() -> None:
    schedule = DAILY | {"weekly": ScheduledTag(7 * DAY, 2)}
    history = made((30, "former"), (6, "daily weekly"), (2, "daily former manual:x"), (1, "daily"), (0, "daily"))
    run = next_ideal(DAY, SHIFT, NOW)

    assert why(schedule, history)[2] == [
        Hold("daily", max(NOW + 3 * DAY, run + 2 * DAY), "it is one of the newest 5"),
        Hold("former", NOW + 12 * DAY, former("2w")),
        Hold("manual:x", None, "tags that begin with 'manual:' never expire"),
    ]
    assert why(schedule, history)[0] == []
    crowded = made(*((hours / 24, "daily") for hours in range(10)))
    young = "5 newer ones have it, but it is younger than 5 times 1d"
    assert why(DAILY, crowded)[0] == [Hold("daily", crowded[0].timestamp + 5 * DAY, young)]
    pinned = made((100, "pinned:shrunk", Trust.TRUSTED, 2), (0, "daily"))
    shrank = "the image shrank after this revision; 'backy accept' says that it was meant"
    assert why(DAILY, pinned)[0] == [Hold("pinned:shrunk", NOW + 3 * DAY, shrank)]
    lonely = made((100, "former"))
    assert why(DAILY, lonely)[0] == [LAST]


def test_what_is_kept_beyond_the_end_of_the_calendar_is_kept_for_ever() -> None:
    for days in (3650, 30):
        schedule = {"daily": ScheduledTag(days * DAY, 100_000)}
        history = made((1000, "former"), (900, "daily"), (0, "daily"))

        assert expiries(schedule, history, NOW) == []
        assert why(schedule, history)[0] == [Hold("former", None, former(format_duration(days * 100_000 * DAY)))]
        assert why(schedule, history)[1] == [Hold("daily", None, "it is one of the newest 100000")]


@given(schedules, histories)
def test_a_revision_has_a_reason_exactly_as_long_as_it_is_kept(schedule: Schedule, history: list[Revision]) -> None:
    left = {revision.id: revision for revision in after(schedule, history)}
    for revision, reasons in zip(history, why(schedule, history), strict=True):
        assert bool(reasons) == (revision.id in left)
        assert all(reason.until is None or reason.until >= NOW for reason in reasons)
