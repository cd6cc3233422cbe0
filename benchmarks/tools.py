"""The measured tools, as the commands that their users type."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Protocol

from benchmarks.measure import Command, run


class Tool(Protocol):
    """A program that backs up images, with stores of its own."""

    name: str
    note: str
    """The options of the tool, for the reader of the results."""
    keeps_history: bool
    """Whether a backup keeps the earlier ones. If not, it replaces them."""

    def absent(self) -> str:
        """Return the name of the program if it is missing, or an empty text."""

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Make empty stores for `images` below `folder`. This is not measured."""

    def store(self, folder: Path) -> Path:
        """Return the folder whose growth is measured."""

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Return the command that backs up `image` as `label`."""

    def restore(self, folder: Path, image: Path, label: str, target: Path) -> Command:
        """Return the command that restores an image to the empty folder `target`."""

    def stream(self, folder: Path, image: Path, label: str) -> Command | None:
        """Return the command that writes an image to standard output; None if the tool has none."""

    def scrub(self, folder: Path, image: Path) -> Command | None:
        """Return the command that reads and checks all stored content; None if the tool has none."""


def missing(program: str) -> str:
    """Return `program` if it is not installed, or an empty text."""
    return "" if shutil.which(program) else program


class Backy:
    """backy: a repository for each image."""

    keeps_history = True

    def __init__(self, verifier: str = "none") -> None:
        self._verifier = verifier
        self.name = "backy" if verifier == "none" else "backy, verified"
        self.note = f"defaults, `verifier: {verifier}`"

    def absent(self) -> str:
        """Return the program if it is missing, or an empty text."""
        # Beside this interpreter, because another backy in the PATH would be measured by mistake.
        return "" if self._program().exists() else str(self._program())

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Make a repository for each image."""
        for image in images:
            repository = self._repository(folder, image)
            run(Command([str(self._program()), "-b", repository, "init", "file", str(image)]))
            config = Path(repository, "config")
            # The file is read-only, so it is made anew.
            content = config.read_text() + f"verifier: {self._verifier}\n"
            config.unlink()
            config.write_text(content)
        # as the scheduler makes it: where files can share blocks, the second machine shares what it has in common
        run(Command([str(self._program()), "share", str(folder)]))

    def store(self, folder: Path) -> Path:
        """Return the folder of all repositories."""
        return folder

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Return the command that backs up `image` with the label as its tag."""
        # Not in this process: starting Python counts as it does for users.
        return Command([str(self._program()), "-b", self._repository(folder, image), "backup", label])

    def restore(self, folder: Path, image: Path, label: str, target: Path) -> Command:
        """Restore by tag."""
        return Command(self._restore(folder, image, label, str(target / image.name)))

    def stream(self, folder: Path, image: Path, label: str) -> Command:
        """Restore to standard output."""
        return Command(self._restore(folder, image, label, "-"), piped=True)

    def scrub(self, folder: Path, image: Path) -> Command:
        """Scrub the image's repository."""
        return Command([str(self._program()), "-b", self._repository(folder, image), "scrub", "deep"])

    def _restore(self, folder: Path, image: Path, label: str, target: str) -> list[str]:
        return [str(self._program()), "-b", self._repository(folder, image), "restore", "-r", label, target]

    @staticmethod
    def _repository(folder: Path, image: Path) -> str:
        return str(folder / image.stem)

    @staticmethod
    def _program() -> Path:
        return Path(sys.executable).with_name("backy")
