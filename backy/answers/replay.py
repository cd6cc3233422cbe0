"""What follows from the lines of a journal: what each revision has to be, and what contradicts it. Pure.

What contradicts what is told by the functions of `audit.py`, by which it is told without backy as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec.structs import astuple

from backy.repository.journal.lines import ADOPT, BEGIN, NO_LINE, Fact, Head, Line, Read
from backy.standalone import audit


@dataclass
class History:
    """All that a journal tells since its beginning, or since a person adopted what was there."""

    told: dict[str, list[audit.Fact]] = field(default_factory=dict)
    """What each revision is: what was written last, and what it may be since, as nobody could tell what came of an act.

    Those that are gone are left out.
    """
    pending: audit.Line | None = None
    """An act that was neither done nor dropped: it runs, or a crash has ended it."""
    problems: list[str] = field(default_factory=list)
    """Where the journal contradicts itself."""

    job: str = ""
    """Id of the repository, by the first line."""
    length: int = 0
    """Number of lines."""
    last: str = NO_LINE
    """The hash of the last line."""
    adopted: int = 0
    """Number of the line of the last adoption; 0 without one."""
    adoption: str = ""
    """The hash of that line."""

    @property
    def head(self) -> Head | None:
        """What a witness remembers; None if there is no journal."""
        return Head(self.job, self.length, self.last, self.adoption) if self.length else None


def replay(lines: Iterable[Read], known: History | None = None) -> History:
    """Follow the lines to the last one; they go on from what is `known`."""
    known = known or History()
    history = replace(known, told=dict(known.told), problems=list(known.problems))
    for number, (line, line_hash) in enumerate(lines, history.length + 1):
        if number == 1:
            history.job = (line and line.note) or ""
            if not line or line.act != BEGIN:
                history.problems.append("the journal has no beginning")
        elif line and line.act == ADOPT and not line.revision:
            # what was before binds nobody any more
            history = History(job=history.job, last=history.last, adopted=number, adoption=line_hash)
        if line:
            plain = _plain(line)
            history.problems += audit.chained(plain, number, history.last)
            history.problems += audit.follow(plain, history.pending, history.told)
            history.pending = plain if plain.step == "intended" else None
        else:
            history.problems.append(f"line {number} is damaged")
        history.length, history.last = number, line_hash
    return history


def _plain(line: Line) -> audit.Line:
    """Return a line as `audit.py` has it."""
    facts = (one and astuple(one) for one in (line.fact, line.was))
    return audit.Line(line.number, line.before, line.act, line.step, line.revision, *facts)


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
    return [
        *history.problems,
        *audit.contradictions(history.told, history.pending, {name: astuple(fact) for name, fact in found.items()}),
        *filter(None, (unwitnessed(lines, history, head) for head in witnessed)),
    ]
