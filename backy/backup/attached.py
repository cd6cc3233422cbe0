"""Collects the attachments of a new revision: from its source, and from programs of the operator."""

import shlex
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from backy.api import ATTACHMENT_PATTERN, DescribedSnapshot, Snapshot
from backy.errors import BackyError, SourceError
from backy.repository.attachments import LARGEST
from backy.text.phrases import size

LIMIT = 60
"""Seconds that a program may take."""
SPARE = 10
"""Seconds more for what it has started and left behind."""


class Attached(NamedTuple):
    """What a new revision gets beside its image."""

    files: dict[str, bytes]
    problems: list[str]
    """Why others are missing, for operators."""

    def add(self, name: str, content: bytes) -> None:
        """Add one, if it may be one, and there is space for it."""
        if not ATTACHMENT_PATTERN.fullmatch(name):
            self.problems.append(f"{name!r} can be no attachment: its name becomes that of a file")
        elif len(content) + sum(map(len, self.files.values())) > LARGEST:
            self.problems.append(f"{name} is left out: all attachments together have at most {size(LARGEST)}")
        else:
            self.files[name] = content


def collect(snapshot: Snapshot, programs: Mapping[str, str]) -> Attached:
    """Return the attachments that a snapshot comes with, and what each of `programs` prints, by name.

    What can not be had is no reason to have no backup: the record gets the problem as a remark.
    """
    attached = Attached({}, [])
    if isinstance(snapshot, DescribedSnapshot):
        try:
            for name, content in snapshot.attachments().items():
                attached.add(name, content)
        except BackyError as error:
            attached.problems.append(f"those of the source are missing: {error}")
    for name, command in programs.items():
        try:
            attached.add(name, _printed(command))
        except SourceError as error:
            attached.problems.append(f"{name} is missing: {error}")
    return attached


def _printed(command: str) -> bytes:
    """Return what a program prints, a byte more than is allowed at most; raises SourceError."""
    try:
        words = ["timeout", "--kill-after=5", str(LIMIT), *shlex.split(command)]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:  # noqa: S603  # the operator chose it
            # bounds the output, and the time as well, even if what the program has started holds its output open
            head = ["head", f"--bytes={LARGEST + 1}"]
            done = subprocess.run(head, stdin=process.stdout, capture_output=True, timeout=LIMIT + SPARE, check=True)  # noqa: S603  # as above
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"'{command}' has started something that keeps its output open") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"'{command}' can not be run: {error}") from error
    if process.returncode and len(done.stdout) <= LARGEST:
        raise SourceError(f"'{command}' ended with exit code {process.returncode}")
    return done.stdout
