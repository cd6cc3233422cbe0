from __future__ import annotations

import signal

from backy.guest.guard import guarded_items, limits


def test_items_that_nobody_takes_any_more_leave_no_timer_behind() -> None:
    with limits():
        items = guarded_items("a folder", lambda: iter([1, 2, 3]))
        assert next(items) == 1
        assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 0
    items.close()

    list(guarded_items("a folder", lambda: iter([1, 2, 3])))
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
