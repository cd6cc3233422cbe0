"""Phrases that many texts share: near misses, counts, sizes, times and lengths of time."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

NOTHING = "-"
"""Stands in a table for a value that is missing."""

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
"""The format of times for strftime: one in logs, tables and messages, so that all can be searched for a time."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the one of `known` that is most like `word`; an empty text if none is alike.

    The question ends with a blank, so that a list of alternatives can follow.
    """
    import difflib  # Slow, as is humanize below: `backy --help` and `find` need neither.

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{near[0]}'? " if near else ""


def alternatives(word: str, known: Iterable[str]) -> str:
    """Return the alternatives to `word`: a near miss, if any, and the list of all of `known`."""
    known = list(known)
    return f"{did_you_mean(word, known)}there are: {', '.join(known) or 'none'}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return `count` with the phrase that agrees with it.

    Args:
        count: How many there are.
        one: The phrase for a single thing, such as 'file' or 'chunk is damaged'.
        many: The phrase for all other counts; `one` with an 's' by default.
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def size(count: int) -> str:
    """Return `count` bytes in the largest binary unit that gives at least one, such as '12.0 MiB'."""
    import humanize

    return humanize.naturalsize(count, binary=True)


def local_time(moment: datetime | None, *, zone: bool = False) -> str:
    """Return `moment` in the local time zone, to the second; `zone` adds the name of the zone."""
    if moment is None:
        return NOTHING
    return moment.astimezone().strftime(f"{TIME_FORMAT} %Z" if zone else TIME_FORMAT)


def local_zone(moments: Iterable[datetime | None]) -> str:
    """Return the name of the local time zone, for the heading of a column of `moments`."""
    # The first moment that is known decides, because the name differs in summer and in winter.
    return next((moment.astimezone().tzname() for moment in moments if moment), None) or "UTC"


TO_MINUTES = 16
"""Length of the part of a time that tells no seconds."""


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return of each id the beginning by which people name it: 12 characters, or all if that begins another one."""
    ids = list(ids)
    begun = Counter(one[:12] for one in ids)
    return {one: one[:12] if begun[one[:12]] == 1 else one for one in ids}


def length_of_time(seconds: float | None) -> str:
    """Return a length of time in days, hours, minutes and seconds; below a minute in tenths of a second."""
    if seconds is None:
        return NOTHING
    length = timedelta(seconds=round(seconds))
    return str(length) if length >= timedelta(minutes=1) else f"{seconds:.1f} s"
