from __future__ import annotations

from backy.backup import Backup
from backy.repository import Repository


def test_backup_makes_a_complete_verified_revision(repository: Repository, clock) -> None:
    revision = Backup(repository, ("daily",), clock=clock).run()

    assert repository.history() == [revision]
    assert revision.complete
    assert str(revision.verification) == "verified"
