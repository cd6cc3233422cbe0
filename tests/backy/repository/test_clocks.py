from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backy.system.clocks import Instant, boot_id, boottime, trusted_time

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ALLOWANCE = timedelta(days=36)
seconds = st.integers(-(10**9), 10**9)
walls = seconds.map(lambda number: EPOCH + timedelta(seconds=number))
instants = st.builds(Instant, walls, st.sampled_from(["a", "b", None]), st.none() | st.floats(0, 1e9))


def at(days: float, boot: str | None = "a", up: float | None = None) -> Instant:
    """A time by the clock, with the days that the machine has been up."""
    return Instant(EPOCH + timedelta(days=days), boot, None if up is None else up * 86400)


@given(instants, walls, instants)
def test_it_never_goes_back_and_never_further_than_the_clock(before: Instant, trusted: datetime, now: Instant) -> None:
    passed = trusted_time(before, trusted, now, ALLOWANCE) - trusted

    assert timedelta() <= passed <= max(now.wall - before.wall, timedelta())


@given(walls, walls, st.floats(0, 1e9), st.floats(0, 1e9), walls)
def test_within_a_boot_no_jump_of_the_clock_counts(
    before: datetime, now: datetime, up: float, later: float, trusted: datetime
) -> None:
    passed = trusted_time(Instant(before, "a", up), trusted, Instant(now, "a", later), ALLOWANCE) - trusted

    assert passed <= timedelta(seconds=max(later - up, 0))


@given(instants, walls, instants)
def test_across_boots_a_jump_counts_as_the_allowance_at_most(before: Instant, trusted: datetime, now: Instant) -> None:
    other = now._replace(boot="another")

    assert trusted_time(before, trusted, other, ALLOWANCE) - trusted <= ALLOWANCE


@given(st.lists(st.tuples(st.integers(0, 35), st.booleans()), max_size=30))
def test_clocks_that_are_right_are_trusted(days: list[tuple[int, bool]]) -> None:
    before, trusted, up = at(0, "0", 0), EPOCH, 0.0
    for number, (passed, restarted) in enumerate(days, 1):
        up = 0 if restarted else up + passed
        boot = str(number) if restarted else before.boot
        now = Instant(before.wall + timedelta(days=passed), boot, up * 86400)
        trusted = trusted_time(before, trusted, now, ALLOWANCE)
        assert trusted == now.wall
        before = now


def test_many_small_jumps_within_a_boot_add_up_to_nothing() -> None:
    trusted, before = EPOCH, at(0, up=0)
    for number in range(1, 15):
        now = at(1.9 * number, up=number / 1440)
        trusted, before = trusted_time(before, trusted, now, ALLOWANCE), now

    assert trusted == EPOCH + timedelta(minutes=14)


def test_this_machine_has_both_clocks() -> None:
    assert len(boot_id()) == 36
    assert boottime() > 0
