from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from backy.config import Duration
from backy.conversion.convert import Conversion
from backy.errors import ConfigError, PluginError, RepositoryBusyError, RepositoryError, StorageError
from backy.groups.acts import backup
from backy.groups.forget import forget
from backy.groups.group import Group
from backy.repository.config import ScheduledTag, StorageSection
from backy.repository.drills import write as write_drill
from backy.repository.repository import Repository
from backy.retention.purge import purge
from backy.scheduler.configuration.configuration import Configuration, load
from backy.scheduler.jobs.repositories import configure, pending, stamp, summarize
from backy.system.locking import BACKUP_LOCK, exclusive
from tests.revisions import drilled

NOW = datetime(2200, 1, 1, tzinfo=UTC)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.fixture
def written(base: Path, image: Path) -> Callable[..., Configuration]:
    """Load a configuration with one job, which has these further lines."""

    def write(job: str = "", settings: str = "", filename: Path = image) -> Configuration:
        path = base.parent / "backy.conf"
        path.write_text(
            f"global: {{base-dir: {base}, {settings}}}\n"
            "schedules: {default: {daily: {interval: 86400, keep: 7}, weekly: {interval: 1w, keep: 4}}}\n"
            f"jobs: {{vm: {{source: {{type: file, filename: {filename}}}, schedule: default, {job}}}}}\n"
        )
        return load(path)

    return write


def made(configuration: Configuration) -> Repository:
    """Do what the scheduler does, and then the backup that it starts."""
    content, directory = pending(configuration.jobs["vm"]), configuration.jobs["vm"].directory
    return Repository.open(directory) if content is None else configure(directory, content)


def test_a_new_job_gets_a_repository_that_commands_can_use(written, base: Path, image: Path, backy) -> None:
    repository = made(written())

    assert repository.directory == base / "vm"
    found = Repository.open(base / "vm").config
    assert found.source == {"type": "file", "filename": str(image)}
    assert found.schedule == {
        "daily": ScheduledTag(Duration(days=1), 7),
        "weekly": ScheduledTag(Duration(days=7), 4),
    }
    assert found.created is not None
    assert abs(datetime.now(UTC) - found.created) < timedelta(minutes=10)
    assert "interval: 1d" in (base / "vm/config").read_text()
    assert backy("-b", base / "vm", "backup", "daily").code == 0


def test_a_config_that_says_the_same_is_left_alone(written, base: Path) -> None:
    made(written())
    before = (base / "vm/config").stat()
    made(written())
    after = (base / "vm/config").stat()

    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_entry_is_written_and_the_rest_stays(written, base: Path, tmp_path: Path) -> None:
    first = made(written()).config
    other = tmp_path / "other.img"
    second = made(
        written("verifier: none, keep: {daily: 3}, storage: {type: chunked, compression: 3}", "", other)
    ).config

    assert (second.format, second.id, second.created) == (first.format, first.id, first.created)
    assert second.source["filename"] == str(other)
    assert (second.verifier, second.storage) == (
        [{"type": "none"}],
        {"type": "chunked", "compression": 3},
    )
    assert second.schedule is not None
    assert (second.schedule["daily"].keep, second.schedule["weekly"].keep) == (3, 4)
    assert Repository.open(base / "vm").config == second
    assert made(written("expire: false")).config.expire is False


def test_nobody_writes_a_config_that_another_command_may_change(written, base: Path) -> None:
    made(written())
    before = (base / "vm/config").read_bytes()
    with exclusive(base / "vm", BACKUP_LOCK):
        assert made(written()), "nothing is to be written"
        with pytest.raises(RepositoryBusyError):
            made(written("verifier: none"))
    assert (base / "vm/config").read_bytes() == before
    made(written("verifier: none"))
    assert (base / "vm/config").read_bytes() != before


def test_what_a_conversion_wrote_meanwhile_is_not_undone(written, base: Path, monkeypatch) -> None:
    """It ends after `config` was read, and before the lock is taken."""
    vm = made(written()).directory
    opened = Repository.open(vm)
    Conversion(Repository.open(vm), "chunked", {"name": "second"}).run()
    emptied = Repository.open(vm).config
    Repository.open(vm).change_storage(StorageSection({"type": "chunked", "name": "third"}))

    opened.configure(msgspec.structs.replace(opened.config, storage=emptied.storage, expire=False))

    found = Repository.open(vm).config
    assert (found.storage, found.expire) == (emptied.storage, False)
    assert [section.folder for section in found.earlier_storages] == ["third"], "and not the one that is gone"


def test_a_missing_base_directory_is_not_made(written, base: Path) -> None:
    configuration = written()
    base.rmdir()

    with pytest.raises(RepositoryError, match="is its disk mounted"):
        made(configuration)
    assert not base.exists()


def test_a_repository_of_backy_2_is_left_alone(written, base: Path, tree) -> None:
    (base / "vm").mkdir()
    (base / "vm/config").write_text("{type: file, filename: /x}\n")
    before = tree(base)

    with pytest.raises(RepositoryError, match="is a repository of backy 2"):
        made(written())
    assert tree(base) == before


OTHER_STORAGE = """
from backy.errors import StorageError
from backy.hookspecs import hookimpl

class Other:
    raw = False
    shares_chunks = True
    create = open = repair = remove = held = purge = None
    def __init__(self, job): self.directory, self.marker = job.directory, job.store
    @property
    def identity(self): return self.marker.read_text()
    def initialize(self, identity):
        if (self.directory / "full").exists(): raise StorageError("no room here")
        self.marker.write_text(identity)

@hookimpl
def backy_storage(job): return Other(job)
"""


def test_another_storage_is_made_ready_before_it_is_written(written, base: Path, tree, distribution) -> None:
    distribution("acme", {"backy.storages": ["other"]}, OTHER_STORAGE)
    made(written())
    (base / "vm/full").touch()
    before = tree(base)
    with pytest.raises(StorageError, match="no room here"):
        made(written("storage: other"))
    assert tree(base) == before

    (base / "vm/full").unlink()
    made(written(settings="storage: other"))
    assert (base / "vm/other").exists()
    config = Repository.open(base / "vm").config
    assert [section.type for section in config.storages] == ["other", "chunked"]


def test_all_earlier_storages_are_remembered(written, base: Path, tree, distribution) -> None:
    distribution("acme", {"backy.storages": ["other", "third"]}, OTHER_STORAGE)
    made(written())
    made(written("storage: other"))
    config = made(written("storage: third")).config
    assert [section.type for section in config.storages] == ["third", "other", "chunked"]
    before = tree(base)
    made(written("storage: third"))
    assert tree(base) == before
    assert [section.type for section in made(written()).config.storages] == ["chunked", "third", "other"]


@pytest.fixture
def reflinking(base: Path, mount: Callable[..., Path]) -> Path:
    """Let the base directory be one in which both storages work."""
    base.rmdir()
    base.symlink_to(mount("btrfs"))
    return base


def test_the_last_chunked_revision_leaves_nothing_after_a_change_to_cow(written, reflinking: Path, backy) -> None:
    vm = reflinking / "vm"
    made(written("storage: {type: chunked, compression: 3}"))
    assert backy("-b", vm, "backup", "daily").code == 0
    repository = made(written("storage: cow"))
    assert [*repository.config.earlier_storages] == [{"type": "chunked", "compression": 3}]
    assert backy("-b", vm, "backup", "daily").code == 0
    forget(repository, [repository.records.history()[0].id], "a test", force=True)
    assert list(vm.glob("chunks/??/*"))

    assert purge(repository, everything=True).files > 0
    assert not list(vm.glob("chunks/??/*"))
    Conversion(made(written("storage: cow")), "cow").run()
    assert not (vm / "chunks").exists()
    assert made(written("storage: cow")).config.earlier_storages == ()


def test_a_conversion_that_backy_conf_turns_back_leaves_no_copy(written, reflinking: Path, backy, monkeypatch) -> None:
    vm = reflinking / "vm"
    repository = made(written())
    assert backy("-b", vm, "backup", "daily").code == 0
    (revision,) = repository.records.history()
    monkeypatch.setattr(Conversion, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Conversion(repository, "cow").run()
    assert (vm / revision.id).exists()

    repository = made(written())
    assert [section.type for section in repository.config.storages] == ["chunked", "cow"]
    forget(repository, [revision.id], "a test", force=True)
    purge(repository, everything=True)
    assert not (vm / revision.id).exists()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (
            "storage: {type: chunked, compression: 99}",
            "config.storage.compression: expected a whole number of at most 19, got 99",
        ),
        ("verifier: {type: sample, percent: 0}", "config.verifier.percent: expected a number above 0.0, got 0"),
        ("verifier: smaple", "no verifier 'smaple'; did you mean 'sample'?"),
    ],
)
def test_what_plugins_refuse_is_not_written(written, base: Path, tree, job: str, error: str) -> None:
    made(written())
    before = tree(base)

    with pytest.raises((ConfigError, PluginError), match=error.replace("?", r"\?")):
        made(written(job))
    assert tree(base) == before


def test_a_job_is_known_since_its_repository_was_made(written, base: Path) -> None:
    repository = made(written())
    assert summarize(base / "vm", NOW, NOW).past.since == repository.config.created

    text = "".join(line for line in (base / "vm/config").read_text().splitlines(True) if "created" not in line)
    (base / "vm/config").unlink()
    (base / "vm/config").write_text(text)
    os.utime(base / "vm/config", (1_000_000_000, 1_000_000_000))
    assert summarize(base / "vm", NOW, NOW).past.since == datetime.fromtimestamp(1_000_000_000, UTC)


def test_a_job_with_disks_becomes_a_group_that_is_looked_at_as_one(written, base: Path, image: Path) -> None:
    path = base.parent / "backy.conf"
    disk = f"{{source: {{type: file, filename: {image}}}}}"
    path.write_text(
        f"global: {{base-dir: {base}}}\n"
        "schedules: {default: {daily: {interval: 86400, keep: 7}}}\n"
        f"jobs: {{vm: {{disks: {{root: {disk}, data: {disk}}}, schedule: default}}}}\n"
    )
    configuration = load(path)
    content, directory = pending(configuration.jobs["vm"]), configuration.jobs["vm"].directory
    assert content is not None
    group = configure(directory, content)
    assert isinstance(group, Group)
    assert pending(configuration.jobs["vm"]) is None
    assert summarize(directory, NOW, NOW).revisions == 0
    made = backup(group, ("daily",))
    found = summarize(directory, NOW, NOW)
    assert (found.revisions, found.newest, found.audited.tampering) == (1, made.id, ())
    before = stamp(directory)
    # a drill of a group has its result in each disk
    done = drilled(made.id, ok=False, reason="no kernel", signs=(("kernel", 3.0), ("login", 9.0)), restore=70.0)
    for name in group.names():
        write_drill(group.repository(name).records, made.id, done)
    assert stamp(directory) != before
    found = summarize(directory, NOW, NOW)
    assert (found.drilled, found.drill_problem) == (done.time, "no kernel")
    assert (found.first_sign, found.restore_seconds) == (3.0, 70.0)
    backup(group, ("daily",))
    # not by one of its disks
    (directory / f"data/{made.id}.rev").unlink()
    found = summarize(directory, NOW, NOW)
    assert found.revisions == 1
    assert [text.partition(" ")[0] for text in found.audited.tampering] == ["data:"]


def test_the_repository_of_one_image_becomes_no_group(written, base: Path, image: Path) -> None:
    directory = made(written()).directory
    disks = f"disks: {{root: {{source: {{type: file, filename: {image}}}}}}}"
    with pytest.raises(RepositoryError, match="is the repository of one image"):
        configure(directory, f"{{format: 3, {disks}}}".encode())


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("", "'source' is missing"),
        ("disks: {},", "'source' is missing"),
        ("source: {type: file, filename: /x}, disks: {root: {source: {type: file}}},", "not two of them"),
        ("disks: {config: {source: {type: file}}},", "backy itself uses the name"),
    ],
)
def test_a_job_has_one_image_or_disks(base: Path, keys: str, why: str) -> None:
    path = base.parent / "backy.conf"
    path.write_text(f"schedules: {{d: {{daily: {{interval: 1d, keep: 7}}}}}}\njobs: {{vm: {{{keys} schedule: d}}}}\n")
    with pytest.raises(ConfigError, match=why):
        load(path)
