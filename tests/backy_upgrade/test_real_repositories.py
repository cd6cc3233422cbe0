"""What the real backy 2.2 and 2.5.3 made is upgraded with all that they knew of it."""

import fcntl
import os
from datetime import UTC, datetime

import pytest
import yaml

from backy.reading import open_repository
from tests.backy_upgrade.conftest import files_of, sums_of

NAMES = ["chunked", "cowfile", "chunked-2.2", "cowfile-2.2"]


def facts(directory) -> list[tuple]:
    """Return what the records of backy 2 tell, the oldest first."""
    records = [yaml.safe_load(path.read_text()) for path in directory.glob("*.rev") if not path.is_symlink()]
    return sorted((one["timestamp"].astimezone(UTC), one["uuid"], tuple(sorted(one["tags"]))) for one in records)


@pytest.mark.parametrize("name", NAMES)
def test_every_revision_is_there_with_its_image(name, real, backy):
    found = real(name)
    known, files = facts(found.directory), files_of(found.directory)

    done = backy("-b", found.directory, "upgrade")

    assert (done.code, done.out) == (0, f"{name}: 3 revisions are upgraded\n"), done.err
    revisions = open_repository(found.directory).revisions()
    assert [(one.timestamp, one.id, one.tags) for one in revisions] == known
    assert [one.trust for one in revisions] == ["trusted"] * 3
    assert sums_of(found.directory) == found.sums
    # nothing was written to an old file, and nothing else of it is left
    assert files_of(found.directory / "backy-2") == files
    assert backy("-b", found.directory, "audit").code == 0
    assert not [path for path in found.directory.iterdir() if path.name.startswith("backy-3")]


def test_the_configuration_is_kept(real, backy):
    found = real("chunked")

    backy("-b", found.directory, "upgrade")

    config = yaml.safe_load((found.directory / "config").read_text())
    assert config["source"] == {"type": "file", "filename": "/srv/images/a.img"}
    assert config["schedule"] == {"daily": {"interval": "1d", "keep": 7}, "weekly": {"interval": "1w", "keep": 4}}
    assert config["storage"] == {"type": "chunked"}


def test_the_next_backup_builds_upon_what_was_upgraded(real, backy, tmp_path):
    found = real("chunked-2.2")
    (tmp_path / "vm.img").write_bytes(b"content" * 1_000_000)
    config = found.directory / "config"
    config.chmod(0o640)
    config.write_text(config.read_text().replace("/srv/images", str(tmp_path)))
    backy("-b", found.directory, "upgrade")

    done = backy("-b", found.directory, "backup", "daily")

    assert done.code == 0, done.err
    made = open_repository(found.directory).revisions()[-1]
    assert (made.parent, made.seq) == ("YeqX6C5siViEZuoHTmaBnJ", 4)


def test_going_back_is_a_rename(real, backy):
    found = real("cowfile-2.2")
    before = files_of(found.directory)
    backy("-b", found.directory, "upgrade")

    found.directory.rename(aside := found.directory.with_name("aside"))
    (aside / "backy-2").rename(found.directory)

    assert files_of(found.directory) == before
    assert (found.directory / "last").readlink().name == "mHk2pux5ZToHHqjmucMRzC"
    # and forward again
    assert backy("-b", found.directory, "upgrade").code == 0
    assert sums_of(found.directory) == found.sums


def test_old_files_go_when_the_upgrade_is_finished(real, backy):
    found = real("cowfile")
    early = backy("-b", found.directory, "upgrade", "--finish")
    assert (early.code, early.err.count("\n")) == (1, 1)
    assert "is not upgraded yet" in early.err
    backy("-b", found.directory, "upgrade")

    done = backy("-b", found.directory, "upgrade", "--finish")

    assert (done.code, done.out, done.err) == (0, "cowfile: what backy 2 had is removed\n", "")
    assert not (found.directory / "backy-2").exists()
    assert sums_of(found.directory) == found.sums
    again = backy("-b", found.directory, "upgrade", "--finish")
    assert (again.code, again.out) == (0, "cowfile: nothing is left to remove, there is no folder backy-2\n")


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--reclaim"], ["--finish"]])
def test_a_configuration_that_backy_2_wrote_again_costs_nothing(options, real, backy):
    """Its scheduler writes it at each run. What is there is not of backy 2, though, and `backy-2` is all that is."""
    found = real("chunked")
    config = (found.directory / "config").read_bytes()
    backy("-b", found.directory, "upgrade")
    (found.directory / "config").unlink()
    (found.directory / "config").write_bytes(config)
    before = files_of(found.directory)

    done = backy("-b", found.directory, "upgrade", *options)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "is upgraded, but backy 2 has written" in done.err
    assert files_of(found.directory) == before
    # as the message says
    (found.directory / "config").write_text("format: 3\nsource: {type: file, filename: /x}\nstorage: {type: chunked}\n")
    assert sums_of(found.directory) == found.sums
    assert backy("-b", found.directory, "audit").code == 0
    assert backy("-b", found.directory, "upgrade", "--finish").code == 0


def test_files_of_others_stay(real, backy):
    found = real("cowfile")
    (found.directory / "README").write_text("mine\n")

    assert backy("-b", found.directory, "upgrade").code == 0

    assert (found.directory / "README.backy-2").read_text() == "mine\n"
    assert (found.directory / "README").read_text().startswith("This directory is a backup")


def test_a_store_that_lies_elsewhere_is_refused(real, backy):
    """From `backy-2` a link might lead to nothing, and all would be told as damaged."""
    found = real("chunked")
    (found.directory / "chunks").rename(found.directory.parent / "store")
    (found.directory / "chunks").symlink_to("../store")

    done = backy("-b", found.directory, "upgrade")

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "is a symbolic link" in done.err


def test_the_directory_may_be_named_from_below(real, backy, monkeypatch):
    found = real("chunked")
    monkeypatch.chdir(found.directory / "chunks")

    assert backy("-b", "..", "upgrade").out == "chunked: 3 revisions are upgraded\n"


def test_an_upgraded_repository_is_left_alone(real, backy):
    found = real("cowfile")
    backy("-b", found.directory, "upgrade")
    before = files_of(found.directory)

    done = backy("-b", found.directory, "upgrade")

    assert (done.code, done.out) == (0, "cowfile is a repository of backy 3\n")
    assert files_of(found.directory) == before


@pytest.mark.parametrize("name", [".backup", ".purge"])
def test_nothing_is_done_while_backy_2_works(name, real, backy):
    found = real("chunked")
    before = files_of(found.directory)
    lock = os.open(found.directory / name, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    done = backy("-b", found.directory, "upgrade")

    os.close(lock)
    assert done.code == 75
    assert "another backy works there; try later" in done.err
    assert files_of(found.directory) == before


def test_a_restore_of_backy_2_is_not_disturbed(real, backy):
    """It finds its chunks by name, so that names stay until it has ended."""
    found = real("chunked")
    lock = os.open(found.directory / ".purge", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_SH)

    assert backy("-b", found.directory, "upgrade", "--reclaim").code == 75
    assert not (found.directory / "backy-2").exists()
    assert backy("-b", found.directory, "upgrade").code == 75
    assert facts(found.directory) == facts(found.directory / "backy-2") != []

    os.close(lock)
    assert backy("-b", found.directory, "upgrade").code == 0
    assert sums_of(found.directory) == found.sums


def test_backy_2_does_nothing_meanwhile(real, backy, monkeypatch):
    """Its locks are held while revisions are imported, in the directory and in the farm."""
    found = real("chunked")
    busy = []
    from backy_upgrade import upgrade

    def watched(*arguments):
        for folder in (found.directory, found.directory / "backy-2"):
            lock = os.open(folder / ".backup", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy.append(folder.name)
            os.close(lock)
        return imported(*arguments)

    imported = upgrade.import_image
    monkeypatch.setattr(upgrade, "import_image", watched)

    assert backy("-b", found.directory, "upgrade").code == 0
    assert busy == ["chunked", "backy-2"] * 3


def test_a_directory_without_a_repository_is_told(tmp_path, backy):
    done = backy("-b", tmp_path / "missing", "upgrade")

    assert (done.code, done.err) == (1, f"Error: {tmp_path}/missing is no repository: it has no file 'config'\n")


def test_times_are_those_of_the_records():
    from backy_upgrade.records import time_of

    moment = datetime(2015, 8, 1, 20, 0, tzinfo=UTC)
    assert time_of(moment.replace(tzinfo=None)) == time_of(moment) == time_of(1438459200.0) == moment
