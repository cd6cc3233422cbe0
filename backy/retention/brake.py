"""Lets no more expire at a time than was made since, and one more, so that no wrong clock empties a history at once.

The file `.expired` in the repository has the number of the newest revision at the last `expire`: what was made since
has a greater one. A lost file costs time only: then nothing counts as made since, and one of each tag goes at a time.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from backy.durable import read_file, write_file
from backy.repository.clocks import trusted_now
from backy.repository.config import JobConfig
from backy.repository.revision import Revision
from backy.retention.rules import Expiry, expiries
from backy.system.clocks import Instant

MARK = ".expired"
"""Name of the file that tells of the last `expire`."""

_MODE = 0o640


class Mark(msgspec.Struct, frozen=True):
    """What is known of the last `expire`."""

    seq: int
    """The number of the newest revision."""
    waiting: int = 0
    """Number of revisions that waited: the clock alone would have let them expire."""
    told: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When the log last told of them."""


class Plan(NamedTuple):
    """What expires, and what waits."""

    going: list[Expiry]
    """The revisions that lose tags, the newest first."""
    waiting: int
    """Number of revisions that would lose more if the clock were believed."""


def read_mark(directory: Path) -> Mark | None:
    """Return what is known of the last `expire` in a repository; None if it is lost or there was none."""
    try:
        return msgspec.json.decode(read_file(directory / MARK), type=Mark)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_mark(directory: Path, mark: Mark) -> None:
    """Write down, durably, what is known of the last `expire`."""
    write_file(directory / MARK, msgspec.json.encode(mark) + b"\n", _MODE)


def plan(
    config: JobConfig,
    history: Sequence[Revision],
    mark: Mark | None,
    now: Instant,
    allowed: Callable[[Expiry], bool] = lambda _: True,
) -> Plan:
    """Return what expires at `now`; nothing if there is no schedule or it is off.

    `history` has the oldest first. `allowed` is asked about each expiry; what is held back takes nobody's turn.
    """
    if not config.schedule or not config.expire or not history:
        return Plan([], 0)
    trusted = trusted_now(history, now, config.allowance)
    since = history[-1].seq if mark is None else mark.seq
    # an imported image was not made since, however many there are
    made = Counter(tag for one in history if one.seq > since and one.boot for tag in one.birth_tags)
    going = _braked(expiries(config.schedule, history, now.wall, trusted), made, allowed)
    left = _losses(expiries(config.schedule, history, now.wall)) - _losses(going)
    return Plan(going, len({revision_id for revision_id, _ in left}))


def _braked(found: Sequence[Expiry], made: Counter[str], allowed: Callable[[Expiry], bool]) -> list[Expiry]:
    """Return what may go at once: of each tag as many as were made, and one more, the oldest first."""
    spent: Counter[str] = Counter()
    going = []
    for expiry in reversed(found):
        # one more than were made: so a history that is longer than wanted gets shorter with each backup
        lost = [tag for tag in expiry.lost if spent[tag] <= made[tag]]
        braked = Expiry(expiry.revision, tuple([tag for tag in expiry.revision.tags if tag not in lost]))
        # a revision without tags is nobody's history: a person took the last one away
        if (lost or not expiry.revision.tags) and allowed(braked):
            spent.update(lost)
            going.append(braked)
    return going[::-1]


def _losses(found: Sequence[Expiry]) -> set[tuple[str, str]]:
    return {(expiry.revision.id, tag) for expiry in found for tag in expiry.lost}
