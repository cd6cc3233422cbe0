"""What follows from the lines of a journal: what each revision has to be, and what contradicts it. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backy.repository.journal.lines import ADOPT, BEGIN, NO_LINE, Fact, Head, Line, Read, Step

_GONE = (Fact(),)


@dataclass
class History:
    """All that a journal tells since its beginning, or since a person adopted what was there."""

    told: dict[str, tuple[Fact, ...]] = field(default_factory=dict)
    """What each revision is: what was written last, and what it may be since, as nobody could tell what came of an act.

    Those that are gone are left out.
    """
    pending: Line | None = None
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
        if problem := _broken(line, number, history.last):
            history.problems.append(problem)
        if line:
            _follow(history, line)
        history.length, history.last = number, line_hash
    return history


def _broken(line: Line | None, number: int, before: str) -> str | None:
    """Return how a line breaks the chain."""
    if line is None:
        return f"line {number} is damaged"
    if line.number != number:
        return f"line {number} has the number {line.number}"
    return None if line.before == before else f"line {number} does not follow the one before it"


def _follow(history: History, line: Line) -> None:
    """Take in one line."""
    pending, history.pending = history.pending, None
    if pending and (line.step is Step.INTENDED or (line.act, line.revision) != (pending.act, pending.revision)):
        history.problems.append(f"line {pending.number}: nothing tells whether '{pending.act}' was done")
    if line.step is Step.INTENDED:
        history.pending = line
        told = history.told.get(line.revision or "", _GONE)
        # an act on what somebody has changed before must not make it right
        if line.was and line.fact and line.fact.record and line.was not in told and not line.was.unread:
            history.problems.append(
                f"line {line.number}: {line.revision} was not what was written last, before '{line.act}'"
            )
    elif line.step is Step.UNKNOWN and line.revision and line.fact:
        history.told[line.revision] = (*history.told.get(line.revision, _GONE), line.fact)
    elif line.step is Step.DONE and line.revision and line.fact:
        history.told[line.revision] = (line.fact,)
        if line.fact.record is None:
            del history.told[line.revision]


def contradictions(history: History, found: Mapping[str, Fact]) -> Iterator[str]:
    """Yield where the directory is not what the journal tells.

    Args:
        history: What the journal tells.
        found: What is there.
    """
    for revision_id in sorted(history.told.keys() | found.keys()):
        told, there = list(history.told.get(revision_id, _GONE)), found.get(revision_id, Fact())
        # an act that has not ended explains what is there, too
        if history.pending and history.pending.revision == revision_id:
            told.append(history.pending.fact or Fact())
        if there not in told:
            # what can not be read now is held against what it may be
            yield _difference(revision_id, next(filter(there.may_be, told), told[0]), there)


def _difference(revision_id: str, told: Fact, there: Fact) -> str:
    if told.record is None:
        return f"revision {revision_id} is there, and the journal does not know of it"
    if there.record is None:
        return f"revision {revision_id} is gone, and nothing in the journal removed it"
    what, content = (".rev", there.record) if told.record != there.record else (".state", there.state)
    unread = content is not None and " " in content
    return f"{revision_id}{what} {content if unread else 'is not the one that was written last'}"


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
        *contradictions(history, found),
        *filter(None, (unwitnessed(lines, history, head) for head in witnessed)),
    ]
