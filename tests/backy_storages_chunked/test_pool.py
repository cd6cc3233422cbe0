"""Repositories of one base directory share space, and each of them is whole without the others."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from backy.answers.space import Space, occupied, spaces
from backy.api import CHUNK_SIZE, Job, identify
from backy.backup.backup import Backup
from backy.errors import ConfigError
from backy.groups.acts import join
from backy.repository.config import CONFIG, Disk, GroupConfig, JobConfig, SourceSection, StorageSection, write_job
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from backy.restore.restore import Restore
from backy.retention.purge import purge
from backy.scheduler.jobs.repositories import pending
from backy_storages_chunked import pool
from backy_storages_chunked.pool import PLACES, POOL, SWEPT, Share
from backy_storages_chunked.storage import ChunkedConfig, ChunkedStorage

CHUNKS = 10


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(CHUNK_SIZE)


class Base:
    """A base directory with a pool, and machines that are alike but for one chunk each."""

    def __init__(self, folder: Path, **share: str) -> None:
        self.folder = folder / "base"
        self.folder.mkdir(mode=0o750)
        (self.folder / POOL).mkdir()
        self.share = share

    def machine(self, number: int, **share: str) -> Repository:
        """Make a machine, and back it up."""
        image = self.folder.parent / f"disk{number}"
        image.write_bytes(b"".join(noise(one) for one in range(CHUNKS - 1)) + noise(1000 + number))
        source, options = {"type": "file", "filename": str(image)}, self.share | share
        storage = StorageSection({"type": "chunked", **({"share": options} if options else {})})
        config = JobConfig(format=FORMAT, source=SourceSection(source), storage=storage)
        made = Repository.initialize(self.folder / f"vm{number}", config)
        Backup(made, ("daily",)).run()
        return made

    def files(self, repository: Repository) -> list[Path]:
        return sorted(repository.directory.glob("chunks/??/*.zst"))

    @property
    def pooled(self) -> list[Path]:
        return sorted(self.folder.glob(f"{POOL}/*/??/*"))

    def sweep(self, repository: Repository) -> None:
        """Purge, more than an hour after the last sweep."""
        for mark in self.folder.glob(f"{POOL}/{SWEPT}"):
            mark.unlink()
        os.sync()  # XFS gives back what was removed a moment later
        purge(repository)


def restored(repository: Repository, target: Path) -> bytes:
    Restore(Repository.open(repository.directory), "last", str(target), force=True).run()
    return target.read_bytes()


def image(number: int) -> bytes:
    return b"".join(noise(one) for one in range(CHUNKS - 1)) + noise(1000 + number)


def emptied(repository: Repository) -> None:
    for path in repository.directory.glob("*.*"):
        if path.suffix in {".rev", ".state", ".map"}:
            path.unlink()


def stored(repository: Repository) -> int:
    revision: Revision = repository.records.history()[-1]
    return revision.statistics.bytes_stored


@pytest.fixture(params=["xfs", "btrfs"])
def base(request: pytest.FixtureRequest, mount: Callable[..., Path]) -> Base:
    return Base(mount(request.param))


def test_a_second_machine_takes_what_it_has_alone(base: Base, tmp_path: Path) -> None:
    first, second = base.machine(1), base.machine(2)

    assert stored(first) > CHUNKS * CHUNK_SIZE
    assert CHUNK_SIZE < stored(second) < 1.1 * CHUNK_SIZE
    found = spaces([first.directory, second.directory])
    for one in found.values():
        assert (CHUNKS - 1) * CHUNK_SIZE < one.shared < (CHUNKS - 1) * 1.1 * CHUNK_SIZE
        assert CHUNK_SIZE < one.alone < 1.3 * CHUNK_SIZE
    assert restored(first, tmp_path / "out") == image(1)
    assert restored(second, tmp_path / "out") == image(2)
    # each has files of its own
    assert not {path.stat().st_ino for path in base.files(first)} & {path.stat().st_ino for path in base.files(second)}


def test_a_repository_tells_what_the_pool_has_too(base: Base, backy) -> None:
    repository = base.machine(1)
    taken = occupied(repository.directory)

    assert CHUNKS * CHUNK_SIZE < taken.shared < CHUNKS * 1.1 * CHUNK_SIZE
    assert 0 < taken.alone < CHUNK_SIZE
    shown = json.loads(backy("-b", repository.directory, "status", "--json").out)
    assert (shown["occupied"], shown["shared"]) == (taken.total, taken.shared)
    assert " of it in the pool, too" in backy("-b", repository.directory, "status").out
    # of what only the pool has, nothing is left without it
    shutil.rmtree(base.folder / POOL)
    os.sync()
    assert occupied(repository.directory) == Space(taken.total)
    assert "pool" not in backy("-b", repository.directory, "status").out


@pytest.mark.parametrize("how", ["removed", "damaged", "changed in place", "purged"])
def test_what_becomes_of_one_harms_no_other(base: Base, tmp_path: Path, how: str) -> None:
    first, second = base.machine(1), base.machine(2)
    if how == "removed":
        shutil.rmtree(first.directory)
    for path in base.files(first):
        if how == "damaged":
            path.unlink()
            path.write_bytes(b"damaged")
        elif how == "changed in place":
            path.chmod(0o600)
            path.write_bytes(b"x" * path.stat().st_size)
    if how == "purged":
        emptied(first)
        purge(first)
    base.sweep(second)

    assert restored(second, tmp_path / "out") == image(2)
    assert base.machine(3)
    assert restored(Repository.open(base.folder / "vm3"), tmp_path / "out") == image(3)


@pytest.mark.parametrize("command", [["cp", "-a"], ["rsync", "-a"], ["mv"]])
def test_a_directory_is_whole_wherever_it_goes(base: Base, tmp_path: Path, command: list[str]) -> None:
    base.machine(1)
    second = base.machine(2)
    subprocess.run([*command, second.directory, tmp_path / "vm2"], check=True)
    shutil.rmtree(base.folder)
    if command[0] == "rsync":
        (tmp_path / "vm2/vm2").rename(tmp_path / "moved")
        (tmp_path / "moved").rename(tmp_path / "vm2/vm2")
    found = tmp_path / "vm2/vm2" if (tmp_path / "vm2/vm2").exists() else tmp_path / "vm2"
    assert restored(Repository.open(found), tmp_path / "out") == image(2)
    subprocess.run(["python3", found / "restore.py", "last", tmp_path / "by-hand"], check=True, capture_output=True)
    assert (tmp_path / "by-hand").read_bytes() == image(2)


def test_what_nobody_shares_any_more_goes_with_a_purge(base: Base) -> None:
    first, second = base.machine(1), base.machine(2)
    assert len(base.pooled) == CHUNKS + 1
    # it was just looked at: each purge of thousands of repositories would do it again
    purge(second)
    shutil.rmtree(first.directory)
    purge(second)
    assert len(base.pooled) == CHUNKS + 1
    base.sweep(second)
    assert {path.name for path in base.pooled} == {path.name for path in base.files(second)}
    emptied(second)
    base.sweep(second)
    base.sweep(second)
    assert base.pooled == []


@pytest.mark.parametrize("content", [b"", b"no frame", None])
def test_nothing_of_the_pool_is_believed(base: Base, tmp_path: Path, content: bytes | None) -> None:
    base.machine(1)
    wrong = base.pooled[0].read_bytes()
    for path in base.pooled:
        path.unlink()
        # a sound frame of another chunk, for the first of them too
        path.write_bytes(wrong[:-4] + b"####" if content is None else content)
    second = base.machine(2)
    assert stored(second) > CHUNKS * CHUNK_SIZE
    assert restored(second, tmp_path / "out") == image(2)
    # and what was wrong is right now
    assert stored(base.machine(3)) < 1.1 * CHUNK_SIZE


def test_only_those_with_the_same_name_share(base: Base) -> None:
    base.machine(1, **{"with": "customer-a"})
    assert stored(base.machine(2, **{"with": "customer-b"})) > CHUNKS * CHUNK_SIZE
    assert stored(base.machine(3)) > CHUNKS * CHUNK_SIZE
    assert stored(base.machine(4, mode="none")) > CHUNKS * CHUNK_SIZE
    assert stored(base.machine(5, **{"with": "customer-b"})) < 1.1 * CHUNK_SIZE
    assert sorted(path.name for path in (base.folder / POOL).iterdir()) == ["all", "customer-a", "customer-b"]


def test_copies_share_again(base: Base, tmp_path: Path, backy) -> None:
    first = base.machine(1)
    copy = base.folder / "copy"
    subprocess.run(["cp", "-a", "--reflink=never", first.directory, copy], check=True)
    assert spaces([first.directory, copy])["copy"].shared < CHUNK_SIZE
    assert join([first.directory, copy])["copy"] > CHUNKS * CHUNK_SIZE
    assert spaces([first.directory, copy])["copy"].shared > CHUNKS * CHUNK_SIZE
    assert join([first.directory, copy]) == {"vm1": 0, "copy": 0}
    # damage is no reason to share it: the kernel compares
    for path in base.files(Repository.open(copy)):
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.unlink()
        path.write_bytes(content)
    assert join([first.directory, copy])["copy"] == 0
    assert restored(first, tmp_path / "out") == image(1)
    assert "0 Bytes were taken twice" in backy("share", base.folder).out
    rows = backy("space", base.folder).out.splitlines()[2:]
    assert sorted(row.split()[0] for row in rows) == ["copy", "vm1"]


@pytest.mark.parametrize("command", ["share", "space"])
def test_a_folder_without_repositories_is_told(tmp_path: Path, backy, command: str) -> None:
    done = backy(command, tmp_path)
    assert done.code == 1
    assert f"{tmp_path} has no repositories" in done.err


def test_hard_links_are_for_those_who_ask_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Base(tmp_path, mode="hardlink")
    first, second = base.machine(1), base.machine(2)
    shared = {path.stat().st_ino for path in base.files(first)} & {path.stat().st_ino for path in base.files(second)}
    assert len(shared) == CHUNKS - 1
    assert stored(second) < 1.1 * CHUNK_SIZE
    for code in (errno.EMLINK, errno.EPERM):

        def link(*_: object, code: int = code, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(pool.os, "link", link)
        third = base.machine(code + 100)
        assert stored(third) > CHUNKS * CHUNK_SIZE
        assert restored(third, tmp_path / "out") == image(code + 100)
        monkeypatch.undo()
    os.chown(base.pooled[0], 1, 1)
    assert stored(base.machine(3)) > 2 * CHUNK_SIZE


def test_a_damaged_file_that_all_have_is_replaced_and_not_written_to(tmp_path: Path) -> None:
    base = Base(tmp_path, mode="hardlink")
    first, second = base.machine(1), base.machine(2)
    damaged = next(path for path in base.files(first) if path.stat().st_nlink == 3)
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.chmod(0o640)
    damaged.write_bytes(content)  # of both, and in the pool
    contents = [noise(seed) for seed in (*range(CHUNKS - 1), 2000)]
    ids = [blake3(one).digest() for one in contents]
    index = [one.hex() for one in ids].index(damaged.stem)
    with second.storage().create("x" * 8, None, 2 * CHUNK_SIZE, ()) as writer:
        for place, one in enumerate((index, -1)):
            writer.write(place, ids[one], contents[one], None)
        writer.commit()
    assert damaged.read_bytes() == content
    with second.storage().open("x" * 8) as reader:
        assert [reader.read(0, ids[one]) == contents[one] for one in (index, -1)] == [True, True]


@pytest.mark.parametrize("shared", [True, False], ids=["tmpfs", "no pool"])
def test_without_clones_each_stores_its_own(tmp_path: Path, shared: bool) -> None:  # a parameter
    memory = Path("/dev/shm") / f"backy-{os.getpid()}"  # no file system there can share blocks
    memory.mkdir()
    try:
        base = Base(memory)
        if not shared:
            (base.folder / POOL).rmdir()
        base.machine(1)
        second = base.machine(2)
        assert stored(second) > CHUNKS * CHUNK_SIZE
        assert base.pooled == []
        assert restored(second, tmp_path / "out") == image(2)
        base.sweep(second)
    finally:
        shutil.rmtree(memory)


def test_a_disk_of_a_machine_uses_the_pool_of_its_base_directory(base: Base) -> None:
    base.machine(1)
    machine = base.folder / "group"
    machine.mkdir()
    source = SourceSection({"type": "file", "filename": str(base.folder.parent / "disk1")})
    config = GroupConfig(format=FORMAT, disks={"root": Disk(source=source)})
    write_job(machine / CONFIG, config)
    disk = Repository.initialize(machine / "root", config.of("root"))
    Backup(disk, ("daily",)).run()
    assert stored(disk) < CHUNK_SIZE
    assert join([base.folder / "vm1", machine])["group"] == 0


@pytest.mark.parametrize("share", [{"mode": "copy"}, {"with": "../x"}, {"with": ""}, {"pool": "x"}, "reflink"])
def test_a_wrong_section_is_refused(tmp_path: Path, share: Any) -> None:
    config = JobConfig(
        format=FORMAT,
        source=SourceSection({"type": "file", "filename": "/x"}),
        storage=StorageSection({"type": "chunked", "share": share}),
    )
    with pytest.raises(ConfigError, match=r"config\.storage\.share"):
        Repository.initialize(tmp_path / "vm", config)


def test_the_scheduler_makes_the_pool(tmp_path: Path) -> None:
    from backy.scheduler.configuration.configuration import load

    (tmp_path / "base").mkdir()
    (tmp_path / "backy.conf").write_text(
        f"global: {{base-dir: {tmp_path}/base}}\nschedules: {{default: {{daily: {{interval: 1d, keep: 7}}}}}}\n"
        "jobs: {vm: {source: {type: file, filename: /x.img}, schedule: default}}\n"
    )
    (job,) = load(tmp_path / "backy.conf").jobs.values()
    assert pending(job)
    assert (tmp_path / "base" / POOL).stat().st_mode & 0o777 == 0o750


def test_a_purge_tells_what_is_free(base: Base) -> None:
    first, second = base.machine(1), base.machine(2)
    base.sweep(second)
    emptied(second)
    # its own chunk is in the pool still, and goes from there an hour later
    assert purge(second).bytes < CHUNK_SIZE
    shutil.rmtree(first.directory)
    third = base.machine(3)
    for mark in base.folder.glob(f"{POOL}/{SWEPT}"):
        mark.unlink()
    os.sync()
    freed = purge(third).bytes
    assert 2 * CHUNK_SIZE < freed < 2.2 * CHUNK_SIZE


def test_one_wrong_file_ends_no_sweep_and_leftovers_go(base: Base) -> None:
    only = base.machine(1)
    folder = base.pooled[0].parent
    (folder / "0.zst").symlink_to("nowhere")
    leftover, fresh = folder / "x.zst.1.1.tmp", folder / "y.zst.1.1.tmp"
    for path in (leftover, fresh):
        path.write_bytes(b"x")
    os.utime(leftover, (0, 0))
    shutil.copy(base.pooled[-1], base.folder / POOL / "all" / ("f" * 64 + ".zst"))
    (base.folder / POOL / "former/ff").mkdir(parents=True)
    alone = base.folder / POOL / "former/ff" / ("f" * 64 + ".zst")
    alone.write_bytes(b"x" * 5000)
    base.sweep(only)
    assert not alone.exists()
    assert not leftover.exists()
    assert fresh.exists()
    assert base.files(only)


def test_a_base_directory_that_can_not_be_written_to_has_no_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backy
) -> None:
    from backy.scheduler.configuration.configuration import load

    (tmp_path / "base/vm").mkdir(parents=True)
    (tmp_path / "backy.conf").write_text(
        f"global: {{base-dir: {tmp_path}/base}}\nschedules: {{default: {{daily: {{interval: 1d, keep: 7}}}}}}\n"
        "jobs: {vm: {source: {type: file, filename: /x.img}, schedule: default}}\n"
    )
    (job,) = load(tmp_path / "backy.conf").jobs.values()
    real = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == POOL:
            raise PermissionError(errno.EACCES, "not for you")
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert pending(job)


def test_what_lies_on_other_disks_is_not_shared(mount: Callable[..., Path]) -> None:
    bases = [Base(mount("xfs")), Base(mount("xfs"))]
    folders = []
    for number, one in enumerate(bases):
        made = one.machine(1)
        folders.append(made.directory.rename(made.directory.with_name(f"on{number}")))
    assert [found.shared for found in spaces(folders).values()] == [0, 0]


def test_a_group_may_have_the_name_of_a_file(base: Base, backy) -> None:
    base.machine(1, **{"with": "config"})
    done = backy("space", base.folder)
    assert done.code == 0
    assert [row.split()[0] for row in done.out.splitlines()[2:]] == ["vm1"]
    assert backy("share", base.folder).code == 0


class Alike(Base):
    """Machines whose chunks all differ from each other's, in a few pages each."""

    def content(self, number: int) -> bytes:
        chunks = [bytearray(noise(one)) for one in range(CHUNKS)]
        for one, chunk in enumerate(chunks):
            chunk[number * 8192 : number * 8192 + 8192] = random.Random(f"{number}.{one}").randbytes(8192)
        return b"".join(chunks)

    def machine(self, number: int, **share: str) -> Repository:
        source = self.folder.parent / f"disk{number}"
        source.write_bytes(self.content(number))
        storage = StorageSection({"type": "chunked", **({"share": share} if share else {})})
        config = JobConfig(
            format=FORMAT, source=SourceSection({"type": "file", "filename": str(source)}), storage=storage
        )
        made = Repository.initialize(self.folder / f"vm{number}", config)
        Backup(made, ("daily",)).run()
        return made


@pytest.fixture(params=["xfs", "btrfs"])
def alike(request: pytest.FixtureRequest, mount: Callable[..., Path]) -> Alike:
    return Alike(mount(request.param))


def test_a_chunk_that_is_much_like_another_ones_takes_what_differs(alike: Alike, tmp_path: Path) -> None:
    alike.machine(1)
    second, third = alike.machine(2), alike.machine(3)

    assert stored(second) < CHUNKS * 40_000
    # with the reserve of 1 MiB
    assert spaces([alike.folder / name for name in ("vm1", "vm2", "vm3")])["vm2"].alone < 2**20 + CHUNKS * 40_000
    os.truncate(alike.folder.parent / "disk2", CHUNKS * CHUNK_SIZE - 100)
    Backup(second, ("daily",)).run()
    # none of it needs the pool, the other machine, or this file system
    for name in (POOL, "vm1"):
        shutil.rmtree(alike.folder / name)
    shutil.copytree(second.directory, tmp_path / "vm2", symlinks=True)
    shutil.rmtree(second.directory)
    copied = Repository.open(tmp_path / "vm2")
    for one in (copied, third):
        purge(one)
    assert restored(copied, tmp_path / "out") == alike.content(2)[:-100]
    assert restored(third, tmp_path / "out") == alike.content(3)
    script = ["python3", tmp_path / "vm2" / "restore.py", "1", tmp_path / "by-hand"]
    subprocess.run(script, check=True, capture_output=True)
    assert (tmp_path / "by-hand").read_bytes() == alike.content(2)


def test_what_others_have_at_a_place_is_looked_at_by_a_first_backup_only(alike: Alike) -> None:
    alike.machine(1)
    image = alike.folder.parent / "disk2"
    image.write_bytes(bytes(CHUNKS * CHUNK_SIZE))
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(image)}))
    second = Repository.initialize(alike.folder / "vm2", config)
    Backup(second, ("daily",)).run()
    image.write_bytes(alike.content(2))
    Backup(second, ("daily",)).run()
    assert stored(second) > CHUNKS * CHUNK_SIZE
    assert not list(second.directory.glob("chunks/??/*.delta"))


def test_who_finds_nothing_alike_stops_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / POOL).mkdir()
    job = Job("vm1", "anid", tmp_path / "vm1", tmp_path / "vm1" / "chunks")
    job.directory.mkdir()
    storage = ChunkedStorage(job, ChunkedConfig("chunked", share=Share("hardlink")))
    storage.initialize("anidentity")
    asked: list[int] = []
    monkeypatch.setattr(pool.Pool, "at", lambda _, index: asked.append(index) or b"")
    with storage.create("first", None, 40 * CHUNK_SIZE, ()) as writer:
        for index in range(40):
            data = noise(index)
            assert writer.write(index, identify(data), data, None) == CHUNK_SIZE
        writer.commit()
    assert asked == list(range(16))


@pytest.mark.parametrize("places", [b"", b"short", random.Random(1).randbytes(32 * CHUNKS), bytes(32 * CHUNKS)])
def test_wrong_places_harm_nothing(alike: Alike, tmp_path: Path, places: bytes) -> None:
    alike.machine(1)
    (alike.folder / POOL / "all" / PLACES).write_bytes(places)
    second = alike.machine(2)
    assert stored(second) > CHUNKS * CHUNK_SIZE
    assert restored(second, tmp_path / "out") == alike.content(2)


def test_a_purge_leaves_what_the_deltas_of_a_failed_first_backup_are_made_of(alike: Alike, tmp_path: Path) -> None:
    alike.machine(1)
    second = alike.machine(2)
    emptied(second)
    job = Job("vm2", "anid", second.directory, second.directory / "chunks")
    storage = ChunkedStorage(job, ChunkedConfig("chunked"))
    data = alike.content(2)[:CHUNK_SIZE]
    # without a commit, it has failed
    with storage.create("failed", None, CHUNK_SIZE, ()) as writer:
        writer.write(0, identify(data), data, None)
    assert storage.purge(set()).files
    with storage.open("") as reader:
        assert reader.read(0, identify(data)) == data
    assert len(list(second.directory.glob("chunks/??/*"))) == 2
