"""What follows from the lines of a journal: what each revision has to be, and what contradicts it. Pure.

What contradicts what is told by the functions of `audit.py`, by which it is told without backy as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from msgspec.structs import astuple

from backy.repository.journal import Fact, Head, Line, Read
from backy.standalone import audit


class History(audit.History):
    """All that a journal tells since its beginning, or since a person adopted what was there."""

    @property
    def head(self) -> Head | None:
        """What a witness remembers; None if there is no journal."""
        return Head(self.job, self.length, self.last, self.adoption) if self.length else None


def replay(lines: Iterable[Read], known: History | None = None) -> History:
    """Follow the lines to the last one; they go on from what is `known`."""
    known = known or History()
    history = replace(known, told=dict(known.told), problems=list(known.problems))
    audit.replay(((_plain(line) if line else None, line_hash) for line, line_hash in lines), history)
    return history


def _plain(line: Line) -> audit.Line:
    """Return a line as `audit.py` has it."""
    facts = (one and astuple(one) for one in (line.fact, line.was))
    return audit.Line(line.number, line.before, line.act, line.step, line.revision, line.note, *facts)


def unwitnessed(lines: Sequence[Read], history: History, head: Head) -> str | None:
    """Return how a journal contradicts what a witness saw; None if it goes on from there."""
    if history.job != head.job:
        return f"the journal is that of {history.job or 'nobody'}, and the witness saw that of {head.job}"
    if head.number > len(lines):
        return f"the journal ends with line {len(lines)}, and the witness saw line {head.number}"
    if lines[head.number - 1].hash != head.hash:
        return f"line {head.number} of the journal is not the one that the witness saw"
    # whoever can write to the directory can also adopt, so this is for the one who has the witness to judge
    if history.adopted > head.number:
        return f"since the witness looked, what was there was adopted, in line {history.adopted} of the journal"
    return None


def findings(
    lines: Sequence[Read], found: Mapping[str, Fact], witnessed: Iterable[Head] = (), history: History | None = None
) -> list[str]:
    """Return all that is wrong with a directory that has this journal.

    Args:
        lines: The journal.
        found: What is there of revisions.
        witnessed: The last lines that witnesses saw of this journal.
        history: What the lines tell, if it is known.
    """
    history = history or replay(lines)
    if not history.length:
        return ["there is no journal"]
    there = {name: astuple(fact) for name, fact in found.items()}
    seen = filter(None, (unwitnessed(lines, history, head) for head in witnessed))
    return [*history.problems, *audit.contradictions(history.told, history.pending, there), *seen]
