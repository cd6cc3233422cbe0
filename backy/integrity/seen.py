"""What backups have seen of the source: when each chunk was read from it last, and when it was compared with it.

The file `.compared` in the repository has the numbers of the revisions, by index. If it is lost, less is known: a doubt
reaches further back than it has to, and verifiers that take turns begin with all chunks. After a source hid a change,
`doubt` follows from it: nobody knows when the source began to.
"""

import logging
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from backy.api import LARGEST_IMAGE, Coverage, chunk_count
from backy.durable import read_file, write_file
from backy.repository.journal import DOUBT
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Revision, Wrong
from backy.text.phrases import counted

log = logging.getLogger(__name__)
FILE: Final = ".compared"


class Seen:
    """For each chunk the numbers of the last revisions in which it was read from the source, and compared with it."""

    def __init__(self, history: Sequence[Revision] = (), numbers: "array[int] | None" = None) -> None:
        # four bytes a number: lists would take as much memory as maps
        numbers = numbers or array("I")
        self._read, self._compared = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        self._history = history

    @classmethod
    def load(cls, directory: Path, history: Sequence[Revision], seq: int) -> Self:
        """Read what is known before revision `seq`; if the file is lost, what the newest one in `history` tells."""
        try:
            numbers = array("I", read_file(directory / FILE, 8 * chunk_count(LARGEST_IMAGE) + 4))
            # neither what was damaged nor what a machine of another byte order wrote has this sum
            if numbers.pop(0) == zlib.crc32(numbers):
                # in a copy that is not whole the file may be ahead: those revisions are none of this directory's
                if max(numbers, default=0) >= seq:
                    numbers = array("I", (number if number < seq else 0 for number in numbers))
                return cls(history, numbers)
            log.warning("%s is damaged: it does not tell what was compared", directory / FILE)
        except FileNotFoundError:
            pass  # before the first backup, and where the directory was made anew
        except (OSError, ValueError, IndexError) as error:
            log.warning("%s does not tell what was compared: %s", directory / FILE, error)
        known = [one.seq for one in history if one.timestamp == history[-1].compared_since][:1]
        return cls(history, array("I", known * (2 * chunk_count(history[-1].size) if known else 0)))

    def save(self, directory: Path) -> None:
        """Write the file, durably and as a whole."""
        numbers = self._read + self._compared
        write_file(directory / FILE, (array("I", [zlib.crc32(numbers)]) + numbers).tobytes(), 0o640)

    def last(self, index: int) -> int:
        """Return the number of the last revision in which a chunk was read or compared; 0 if none is known."""
        return max(self._read[index], self._compared[index]) if index < len(self._read) else 0

    def coverage(self, seq: int, size: int, compared: Iterable[int] = ()) -> Coverage:
        """Return what verifiers get to know for revision `seq`, of an image of `size` bytes; `compared` was already."""
        missing = max(chunk_count(size) - len(self._read), 0)
        # never shorter: where an image shrinks and grows again, an old comparison is worth what it was
        self._read.extend([0] * missing)
        self._compared.extend([0] * missing)
        known = self._compared[: chunk_count(size)]
        for index in compared:
            known[index] = seq
        return Coverage(seq, known)

    def note(self, birth: Birth, size: int, read: Iterable[int], compared: Iterable[int]) -> datetime | None:
        """Add what a backup has seen; return since when all of the image was compared, None if it never was."""
        self.coverage(birth.seq, size)
        for numbers, indexes in ((self._read, read), (self._compared, compared)):
            for index in indexes:
                numbers[index] = birth.seq
        oldest = min(self.coverage(birth.seq, size).compared, default=0)
        # of a revision that is forgotten, the one before has a time that is right as well
        return next((one.timestamp for one in (birth, *reversed(self._history)) if one.seq <= oldest), None)


def doubted(revision: Revision, hidden: Collection[int], seen: Callable[[int], int]) -> tuple[int, ...]:
    """Return the chunks of a revision that are in doubt: those that it took over by what the source told.

    Args:
        revision: The revision.
        hidden: Indexes of the chunks of which the source hid a change.
        seen: Returns the number of the last revision for which a chunk was read from the source, or compared with it.
    """
    return tuple(sorted(one for one in hidden if one < chunk_count(revision.size) and seen(one) < revision.seq))


def doubt(repository: Repository, hidden: Collection[int], seen: Callable[[int], int], now: datetime) -> list[str]:
    """Call revisions wrong in chunks of which the source hid a change; log and return the ids of those where it is new.

    The caller holds `.backup`. Nothing takes this back: what reads only the storage can not know better.
    """
    changed = []
    # the oldest first: the newest is built upon, so that after a crash in between all of this is found again
    for revision in repository.records.history(trash=True):
        known = revision.state.wrong or Wrong((), now)
        chunks = tuple(sorted({*known.chunks, *doubted(revision, hidden, seen)}))
        if chunks != known.chunks:
            repository.records.change(revision, DOUBT, wrong=Wrong(chunks, known.since))
            changed.append(revision.id)
    if changed:
        text = "the source hid a change of %s; wrong, as they took over what they had not read: %s"
        log.error(text, counted(len(hidden), "chunk"), ", ".join(changed))
        # a raw image that is the newest one loses its link
        repository.link_last()
    return changed
