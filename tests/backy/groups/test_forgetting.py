"""How much `forget` lets go without a reason. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backy.groups.forget import forgotten, too_much
from backy.repository.journal import Line, Read, Step
from tests.revisions import make_revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_third_or_three_go_within_the_term_and_never_the_last_good_one(count: int, before: int, chosen: int) -> None:
    history = [make_revision(f"revision-{number}", NOW) for number in range(count)]
    ids = [revision.id for revision in history[:chosen]]
    allowed = too_much(history, ids, before) is None
    assert allowed == (len(ids) + before <= max(3, (count + before) // 3) and not (count and len(ids) == count))


def test_what_is_doubtful_counts_for_nothing() -> None:
    good = make_revision("revision-1", NOW)
    bad = make_revision("revision-2", NOW, distrusted=True)
    assert too_much([good, bad], [good.id], 0) == "then no good revision is left"
    assert too_much([good, bad], [bad.id], 0) is None
    assert too_much([bad], [bad.id], 0) is None


def test_the_journal_tells_what_was_forgotten_lately() -> None:
    def line(act: str, revision: str, days: int, step: Step = Step.DONE) -> Read:
        time = NOW - timedelta(days=days)
        members = {"number": 1, "before": "", "time": time, "boot": "", "boottime": 0.0}
        return Read(Line(act=act, revision=revision, step=step, **members), "")

    lines = [
        line("forget", "a", 8),
        line("forget", "b", 6),
        line("forget", "c", 5, Step.INTENDED),
        line("forget", "d", 4),
        line("undelete", "d", 3),
        line("expire", "e", 3),
        line("forget", "f", 0),
        Read(None, ""),
    ]
    assert forgotten(lines, NOW - timedelta(days=7)) == 2
