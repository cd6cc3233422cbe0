from __future__ import annotations

from datetime import timedelta

from hypothesis import given

from backy.answers.reasons import Hold, Rule, holds
from backy.repository.config import ScheduledTag
from backy.repository.revision import Revision, Trust
from backy.retention.rules import Schedule, expiries, next_ideal
from tests.backy.retention.test_rules import DAILY, DAY, NOW, after, histories, made, schedules

SHIFT = timedelta(seconds=100)


def test_why_says_until_when_a_revision_is_kept() -> None:
    schedule = DAILY | {"weekly": ScheduledTag(7 * DAY, 2)}
    history = made((30, "former"), (6, "daily weekly"), (2, "daily former manual:x"), (1, "daily"), (0, "daily"))
    run = next_ideal(DAY, SHIFT, NOW)

    assert holds(schedule, SHIFT, history, history[2], NOW) == [
        Hold("daily", Rule.COUNT, max(NOW + 3 * DAY, run + 2 * DAY)),
        Hold("former", Rule.FORMER, NOW + 12 * DAY),
        Hold("manual:x", Rule.MANUAL, None),
    ]
    assert holds(schedule, SHIFT, history, history[0], NOW) == []
    crowded = made(*((hours / 24, "daily") for hours in range(10)))
    assert holds(DAILY, SHIFT, crowded, crowded[0], NOW) == [Hold("daily", Rule.WINDOW, crowded[0].timestamp + 5 * DAY)]
    pinned = made((100, "pinned:shrunk", Trust.TRUSTED, 2), (0, "daily"))
    assert holds(DAILY, SHIFT, pinned, pinned[0], NOW) == [Hold("pinned:shrunk", Rule.PINNED, NOW + 3 * DAY)]
    lonely = made((100, "former"))
    assert holds(DAILY, SHIFT, lonely, lonely[0], NOW) == [Hold(None, Rule.NEWEST, None)]


def test_what_is_kept_beyond_the_end_of_the_calendar_is_kept_for_ever() -> None:
    for schedule in ({"daily": ScheduledTag(3650 * DAY, 100_000)}, {"daily": ScheduledTag(30 * DAY, 100_000)}):
        history = made((1000, "former"), (900, "daily"), (0, "daily"))

        assert expiries(schedule, history, NOW) == []
        assert holds(schedule, SHIFT, history, history[0], NOW) == [Hold("former", Rule.FORMER, None)]
        assert holds(schedule, SHIFT, history, history[1], NOW) == [Hold("daily", Rule.COUNT, None)]


@given(schedules, histories)
def test_a_revision_has_a_reason_exactly_as_long_as_it_is_kept(schedule: Schedule, history: list[Revision]) -> None:
    left = {revision.id: revision for revision in after(schedule, history)}
    for revision in history:
        reasons = holds(schedule, SHIFT, history, revision, NOW)
        assert bool(reasons) == (revision.id in left)
        assert all(reason.until is None or reason.until >= NOW for reason in reasons)
