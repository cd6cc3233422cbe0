"""What is done keeps the limits that `config` has, together with what other repositories of the folder do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.config import Size
from backy.copies.copies import pull, push
from backy.repository.config import CONFIG, Disk, GroupConfig, SourceSection, write_job
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.repository.sealed import FORMAT
from backy.restore.restore import Restore
from backy.scrubbing.scrub import Scrub
from backy.system import limits

RATE = 10 * CHUNK_SIZE


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many bytes were taken from each limit, by the name of its file, while nobody has to wait."""
    found: dict[str, int] = {}

    def take(limit: limits.Limit, count: int) -> None:
        assert limit.rate == RATE
        assert limit.path
        found[str(limit.path)] = found.get(str(limit.path), 0) + count

    monkeypatch.setattr(limits.Limit, "take", take)
    return found


@pytest.fixture
def limited(repository: Repository, image: Path) -> Repository:
    image.write_bytes(b"x" * (2 * CHUNK_SIZE) + bytes(CHUNK_SIZE) + b"y" * 1000)
    names = ("backup", "restore", "scrub", "copies", "tape/1")
    config = msgspec.structs.replace(repository.config, limits=dict.fromkeys(names, Size(RATE)))
    write_job(repository.directory / CONFIG, config)
    return Repository.open(repository.directory)


LENGTH = 2 * CHUNK_SIZE + 1000


def test_what_is_read_of_the_source_counts_for_backup_and_for_what_it_reads_from(
    limited: Repository, taken: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = type(limited.source())
    monkeypatch.setattr(source, "reads_from", ("tape/1", "tape/2"), raising=False)
    Backup(limited, ("daily",)).run()

    # read to be stored, and again to be verified; the zeroes are known to the file system, or are read as well
    base = limited.directory.parent
    assert taken.keys() == {f"{base}/.rate-backup", f"{base}/.rate-tape%2F1"}
    assert set(taken.values()) <= {2 * LENGTH, 2 * (LENGTH + CHUNK_SIZE)}


@pytest.mark.parametrize("target", ["file", "stream"])
def test_a_restore_keeps_its_limit(limited: Repository, taken: dict[str, int], tmp_path: Path, target: str) -> None:
    Backup(limited, ("daily",)).run()
    taken.clear()
    with (tmp_path / "out").open("wb") as out:
        where = {"target": str(tmp_path / "file")} if target == "file" else {"target": "-", "descriptor": out.fileno()}
        Restore(limited, "last", **where).run()
    assert taken == {f"{limited.directory.parent}/.rate-restore": LENGTH}


def test_a_scrub_keeps_its_limit(limited: Repository, taken: dict[str, int]) -> None:
    Backup(limited, ("daily",)).run()
    taken.clear()
    Scrub(limited, deep=True, clock=utc_now).run()
    # two chunks are the same one
    assert taken == {f"{limited.directory.parent}/.rate-scrub": LENGTH - CHUNK_SIZE}


def test_a_copy_keeps_the_limit_of_its_side(limited: Repository, taken: dict[str, int], tmp_path: Path) -> None:
    Backup(limited, ("daily",)).run()
    taken.clear()
    copy = Repository.initialize(tmp_path / "elsewhere/vm", msgspec.structs.replace(limited.config, source=None))
    pull(copy.directory, str(limited.directory))
    assert taken.keys() == {f"{tmp_path}/elsewhere/.rate-copies"}
    taken.clear()
    Backup(limited, ("daily",)).run()
    push(limited.directory, str(copy.directory))
    assert f"{limited.directory.parent}/.rate-copies" in taken


def test_a_disk_of_a_machine_shares_with_other_machines(tmp_path: Path) -> None:
    machine = tmp_path / "base/machine"
    machine.mkdir(parents=True)
    source = SourceSection({"type": "file", "filename": "/x"})
    config = GroupConfig(format=FORMAT, disks={"root": Disk(source=source)}, limits={"backup": Size(RATE)})
    write_job(machine / CONFIG, config)
    disk = Repository.initialize(machine / "root", config.of("root"))
    assert [one.path for one in disk.limits("backup", "restore")] == [tmp_path / "base/.rate-backup"]


@pytest.mark.parametrize("name", ["ceph-pool/../../x", "ceph-pool/.", "ceph-pool/a b\n"])
def test_no_name_leads_out_of_the_folder(repository: Repository, name: str) -> None:
    repository.config.limits[name] = Size(RATE)
    (limit,) = repository.limits(name)
    assert limit.path
    assert limit.path.parent == repository.directory.parent
    assert limit.path.name.startswith(".rate-ceph-pool")
