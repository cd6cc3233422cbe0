"""What the hooks do, seen from outside: each test makes a backup in which the installed plugin is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.api import BackyError, Image, Snapshot
from backy.importing import import_image
from backy.testing.memory import MemoryImage, MemoryRepository


class Whole:
    """An image to import: this is a backup that needs no source."""

    base = None
    name = None

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image."""
        return MemoryImage(b"content" * 1000)


def test_a_complete_revision_is_noted(backy_repository: MemoryRepository, tmp_path: Path) -> None:
    """The line has the revision's id."""
    revision = import_image(backy_repository.directory, Whole(), ("test",))

    assert (tmp_path / "NAME.log").read_text() == f"repository: revision {revision.id} is complete\n"


def test_no_backup_begins_while_there_is_a_file(backy_repository: MemoryRepository, tmp_path: Path) -> None:
    """The reason is shown and noted."""
    (tmp_path / "NAME.stop").touch()

    with pytest.raises(BackyError, match=r"NAME\.stop"):
        import_image(backy_repository.directory, Whole(), ("test",))
    assert "backup failed" in (tmp_path / "NAME.log").read_text()
