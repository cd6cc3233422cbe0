"""The tools that are measured, each as the commands that its users would type."""

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
    """How it is run, for the reader of the results."""
    keeps_history: bool
    """Whether older states are kept when an image is backed up again. If not, each backup is a new copy."""

    def absent(self) -> str:
        """Return the program that is missing here, or nothing."""

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Make empty stores for `images` below `folder`, not measured."""

    def store(self, folder: Path) -> Path:
        """Return the folder whose growth counts."""

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Return what backs up `image` as `label`."""

    def restore(self, folder: Path, image: Path, label: str, target: Path) -> Command:
        """Return what gets an image back into the empty folder `target`."""

    def stream(self, folder: Path, image: Path, label: str) -> Command | None:
        """Return what writes an image to standard output; None if it can not."""

    def scrub(self, folder: Path, image: Path) -> Command | None:
        """Return what reads and checks all content that is stored; None if it can not."""


def missing(program: str) -> str:
    """Return `program` unless it is installed."""
    return "" if shutil.which(program) else program


class Backy:
    """Each image has a repository of its own."""

    keeps_history = True

    def __init__(self, verifier: str = "none") -> None:
        self._verifier = verifier
        self.name = "backy" if verifier == "none" else "backy, verified"
        self.note = f"defaults, `verifier: {verifier}`"

    def absent(self) -> str:
        """Find the program beside this interpreter."""
        return "" if self._program().exists() else str(self._program())

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Make a repository for each image."""
        for image in images:
            repository = self._repository(folder, image)
            run(Command([str(self._program()), "-b", repository, "init", "file", str(image)]))
            config = Path(repository, "config")
            content = config.read_text() + f"verifier: {self._verifier}\n"
            config.unlink()
            config.write_text(content)

    def store(self, folder: Path) -> Path:
        """All repositories."""
        return folder

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Tag the revision with the label."""
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
