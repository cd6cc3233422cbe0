"""What lies in the trash of a repository."""

from __future__ import annotations

from backy.repository.repository import Repository
from backy.repository.revision import Revision


def content(repository: Repository) -> list[Revision]:
    """Return what is in the trash, the oldest first."""
    return [revision for revision in repository.records.history(trash=True) if revision.state.forgotten]
