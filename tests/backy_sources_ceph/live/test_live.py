"""A disk in Ceph that is used before it is there, on a real cluster."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from backy.backup.backup import Backup
from backy.errors import ExitCode
from backy_sources_ceph import connection
from tests import cluster as clusters
from tests.backy_sources_ceph.live.conftest import SIZE, Live
from tests.cluster import Cluster


def test_it_ends_with_a_complete_image_that_is_as_sparse(restore: Callable, live: Live) -> None:
    done = restore("--local")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{live.target} can be used now; {live.revision.id} is served at 127.0.0.1:")
    assert live.state() == 0
    assert live.read() == live.content
    # 13 chunks, of which 5 have data
    assert live.used() < 12 * 2**20
    assert not live.mark.exists()


def test_it_can_be_used_before_anything_is_copied_and_goes_on_later(live: Live, backy: Callable) -> None:
    with live.served("--local"):
        assert live.read() == live.content
        live.write(2**20 + 100, b"written meanwhile")
        live.write(21 * 2**20, b"into a hole")
        live.write(SIZE - 10, b"at the end")
        assert live.read() == live.content
        assert live.state() == 2
    assert live.mark.stat().st_mode & 0o777 == 0o600

    # a newer revision, and no address: it goes on with what it began with
    Backup(live.repository, ("later",)).run()
    done = backy("-b", live.directory, "restore", "--live", live.target)

    assert (done.code, done.err) == (0, "")
    assert live.revision.id in done.out
    assert live.state() == 0
    assert live.read() == live.content


def test_a_machine_that_runs_on_reads_again_when_the_server_is_back(live: Live) -> None:
    import rbd

    with ExitStack() as stack:
        with live.served("--local"):
            image = stack.enter_context(live.opened())
            assert image.read(0, 4096) == live.content[:4096]
        with pytest.raises(rbd.OSError):
            image.read(5 * 2**20, 4096)
        with live.served():
            assert image.read(5 * 2**20, 4096) == live.content[5 * 2**20 : 5 * 2**20 + 4096]


def test_what_a_machine_writes_while_it_migrates_wins(live: Live) -> None:
    generator, written = random.Random(5), 0
    with live.start("--local") as process, ExitStack() as stack:
        assert "can be used now" in process.stdout.readline()
        image = stack.enter_context(live.opened())
        while process.poll() is None or written < 200:
            offset = generator.randrange(SIZE - 4096)
            data = generator.randbytes(generator.randrange(1, 4096))
            image.write(data, offset)
            live.content[offset : offset + len(data)] = data
            near = max(0, offset - 70_000)
            assert (
                image.read(near, 80_000 if near + 80_000 < SIZE else SIZE - near) == live.content[near : near + 80_000]
            )
            written += 1
        assert (process.returncode, process.stderr.read()) == (0, "")
    assert live.state() == 0
    assert live.read() == live.content


class Hypervisor(NamedTuple):
    """A second network namespace."""

    here: str
    """The address at which it reaches this one."""
    words: list[str]
    """The first words of a command in it."""


@pytest.fixture
def hypervisor() -> Iterator[Hypervisor]:
    name, network = f"backy{os.getpid()}", f"10.213.{os.getpid() % 256}"
    found = Hypervisor(f"{network}.1", ["ip", "netns", "exec", name])
    with ExitStack() as stack:

        def run(*words: str) -> None:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"NOT TESTED: a second network namespace, for '{' '.join(words)}' says {done.stderr}")

        def undo(*words: str) -> None:
            stack.callback(subprocess.run, words, capture_output=True, check=False)

        run("ip", "netns", "add", name)
        undo("ip", "netns", "del", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        undo("ip", "link", "del", name)
        run("ip", "addr", "add", f"{found.here}/24", "dev", name)
        run("ip", "link", "set", name, "up")
        run(*found.words, "ip", "addr", "add", f"{network}.2/24", "dev", "eth0")
        run(*found.words, "ip", "link", "set", "eth0", "up")
        yield found


def test_a_hypervisor_elsewhere_fetches_by_itself(
    hypervisor: Hypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_free_address", lambda: hypervisor.here)
    with Cluster.running() as ceph:
        ceph.create_pool("vms")
        monkeypatch.setenv("CEPH_CONF", str(ceph.configuration))
        live = Live(tmp_path, ceph, "vms")
        export = [*hypervisor.words, "rbd", "export", "--no-progress", f"vms/{live.name}", "-"]
        with live.served("--listen", hypervisor.here) as said:
            assert f" is served at {hypervisor.here}:" in said
            found = subprocess.run(export, capture_output=True, check=True)
        assert hashlib.sha256(found.stdout).digest() == hashlib.sha256(live.content).digest()


def test_nothing_that_expires_or_is_purged_changes_it(live: Live, backy: Callable) -> None:
    config = live.directory / "config"
    config.chmod(0o600)
    config.write_text(config.read_text() + "schedule: {daily: {interval: 1s, keep: 1}}\ntrash: 0d\n")
    # its data are in no other revision, and each backup wants to let it go
    (live.directory.parent / "source.img").write_bytes(random.Random(2).randbytes(SIZE))

    def tidy() -> None:
        assert backy("-b", live.directory, "backup", "daily").code == 0
        assert backy("-b", live.directory, "expire").code == 0
        refused = backy("-b", live.directory, "forget", "-r", live.revision.id)
        assert (refused.code, refused.err.count("\n")) == (ExitCode.BUSY, 1), refused
        assert f"revision {live.revision.id} is in use by a live restore" in refused.err
        # a server holds the lock, and without one a purge goes through
        assert backy("-b", live.directory, "purge", "--trash").code in {0, ExitCode.BUSY}

    with live.served("--local"):
        tidy()
        assert live.read() == live.content
    tidy()
    with live.served("--local"):
        tidy()
        assert live.read() == live.content
    assert f"{live.revision.id} is in use" in backy("-b", live.directory, "status").out
    assert backy("-b", live.directory, "restore", "--live", live.target).code == 0
    assert live.read() == live.content
    # now it may go
    for _ in range(4):
        assert backy("-b", live.directory, "backup", "daily").code == 0
        assert backy("-b", live.directory, "expire").code == 0
    assert live.revision.id not in {one.id for one in live.repository.records.history()}


def test_a_revision_in_use_that_is_in_the_trash_stays_there(live: Live, backy: Callable) -> None:
    Backup(live.repository, ("daily",)).run()
    assert backy("-b", live.directory, "forget", "-r", live.revision.id).code == 0
    live.mark.parent.mkdir()
    live.mark.touch()
    assert backy("-b", live.directory, "purge", "--trash").code == 0
    assert live.repository.records.holds(live.revision.id)
    live.mark.unlink()
    assert backy("-b", live.directory, "purge", "--trash").code == 0
    assert not live.repository.records.holds(live.revision.id)


def test_a_conversion_between_two_attempts_changes_no_byte(live: Live, backy: Callable) -> None:
    with live.served("--local"):
        live.write(4096, b"kept")
    assert backy("-b", live.directory, "convert", "--storage", "chunked", "-o", "storage.name=other").code == 0
    assert backy("-b", live.directory, "restore", "--live", live.target).code == 0
    assert live.read() == live.content


def test_abort_removes_the_image_and_frees_the_revision(live: Live, backy: Callable, restore: Callable) -> None:
    with live.served("--local"):
        live.write(4096, b"lost")
        with live.opened():
            refused = restore("--abort")
            assert (refused.code, refused.err.count("\n")) == (1, 1)
            assert live.mark.exists()
    assert live.name in live.images()
    done = restore("--abort")
    assert (done.code, done.err) == (0, "")
    assert live.name not in live.images()
    assert not live.mark.exists()
    again = restore("--abort")
    assert (again.code, again.err) == (1, f"Error: no live restore to {live.target} was interrupted\n")
    assert restore("--local").code == 0


def test_abort_leaves_a_complete_image_alone(live: Live, restore: Callable) -> None:
    with live.served("--local"):
        mark = live.mark.read_text()
    assert restore().code == 0
    # as if it had been killed right before it could remove this
    live.mark.write_text(mark.replace('"copied":false', '"copied":true'))
    assert restore().code == 0
    assert not live.mark.exists()
    live.mark.write_text(mark)
    assert "was made by somebody else meanwhile" in restore().err
    done = restore("--abort")
    assert (done.code, live.mark.exists()) == (0, False)
    assert "is a complete image, and stays" in done.err
    assert live.read() == live.content


def test_an_image_of_somebody_else_is_refused_and_left_alone(live: Live, restore: Callable) -> None:
    live.cluster.command("osd pool ls")
    subprocess.run(["rbd", "create", "--size", "1M", f"{live.pool}/{live.name}"], check=True)
    refused = restore("--local")

    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"Error: target {live.pool}/{live.name} exists already: a live restore makes a new image\n"
    assert not live.mark.exists()
    with live.opened() as image:
        assert image.size() == 2**20


def test_the_image_of_another_live_restore_is_refused_and_left_alone(
    live: Live, restore: Callable, tmp_path: Path
) -> None:
    with live.served("--local"):
        pass
    subprocess.run(["rbd", "migration", "abort", "--no-progress", f"{live.pool}/{live.name}"], check=True)
    (tmp_path / "other").mkdir()
    other = Live(tmp_path / "other", live.cluster, live.pool)
    other.name, other.target = live.name, live.target

    def refused() -> None:
        for option in ("--local", "--abort"):
            done = restore(option)
            assert (done.code, done.out) == (1, "")
            error = f"Error: target {live.pool}/{live.name} is that of another live restore\n"
            assert done.err.endswith(error)
            assert live.mark.exists()

    with other.served("--local"):
        other.write(4096, b"kept")
        refused()
        assert other.read() == other.content
    # and while nobody serves it
    refused()
    with other.served():
        assert other.read() == other.content


def test_an_abort_that_was_interrupted_leaves_nothing_that_is_used_again(live: Live, restore: Callable) -> None:
    before = bytes(live.content)
    with live.served("--local"):
        live.write(4096, b"given up")
    live.set_aborting()
    done = restore()
    assert (done.code, done.err) == (0, "")
    assert live.read() == before
    live.name = f"{live.name}-again"
    live.target = f"{live.target}-again"
    with live.served("--local"):
        pass
    live.set_aborting()
    assert restore("--abort").code == 0
    assert live.name not in live.images()


def test_one_at_a_time_restores_a_revision(live: Live, restore: Callable, backy: Callable) -> None:
    with live.served("--local"):
        twice = restore()
        assert twice.code == 1
        assert "listening at 127.0.0.1:" in twice.err
        other = backy("-b", live.directory, "restore", "--live", "--local", f"{live.target}-other")
        assert (other.code, other.err.count("\n")) == (ExitCode.BUSY, 1)
        assert live.read() == live.content


def test_a_damaged_chunk_is_told_and_the_others_can_be_read(live: Live, restore: Callable) -> None:
    import rbd

    damaged = live.repository.records.read_map(live.revision)[1].hex()
    path = next(path for path in live.directory.glob("chunks/**/*") if damaged in path.name)
    path.chmod(0o600)
    path.write_bytes(b"no chunk")
    with live.served("--local"), live.opened() as image:
        assert image.read(0, 4096) == live.content[:4096]
        with pytest.raises(rbd.OSError):
            image.read(5 * 2**20, 4096)
    failed = restore()
    assert failed.code == 1
    assert "what the image lacks can not be read: " in failed.err
    assert restore("--abort").code == 0


def test_a_version_of_ceph_that_can_not_do_it_is_told(
    live: Live, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rados, rbd = connection.bindings()

    class Old:
        RBD = object

        def __getattr__(self, name: str) -> object:
            return getattr(rbd, name)

    monkeypatch.setattr("backy_sources_ceph.live.bindings", lambda: (rados, Old()))
    done = restore("--local")
    assert (done.code, done.out, live.mark.exists()) == (1, "", False)
    assert done.err.endswith(": this version of Ceph can not do that; 16 and newer can\n")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "all programs that use the image fetch from here by themselves: say by --listen ADDRESS"),
        (["--listen", "0.0.0.0"], "--listen: '0.0.0.0' is not ADDRESS or ADDRESS:PORT"),
        (["--listen", "::1"], "--listen: '::1' is not ADDRESS or ADDRESS:PORT"),
        (["--listen", "127.0.0.1:65536"], "--listen: '127.0.0.1:65536' is not ADDRESS or ADDRESS:PORT"),
        (["--listen", "a/b"], "--listen: 'a/b' is not ADDRESS or ADDRESS:PORT"),
        (["--listen", "192.0.2.7"], "listening at 192.0.2.7:0: Cannot assign requested address"),
        (["--local", "-r", "nonesuch"], "nonesuch"),
        (["--local", "-o", "size=7"], "option.size: unknown key"),
        (["--local", "-o", "conf=/nonexistent"], "the configuration of the Ceph cluster, /nonexistent"),
        (["--abort"], "was interrupted"),
    ],
)
def test_what_can_not_be_done_is_one_line(restore: Callable, live: Live, options: list[str], error: str) -> None:
    done = restore(*options)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert error in done.err
    assert not live.mark.exists()
    assert live.name not in live.images()


def test_an_image_that_can_not_be_made_tells_nobody_the_path(live: Live, restore: Callable) -> None:
    done = restore("--local", "-o", "features=object-map")
    assert done.code == 1
    assert done.err.endswith(f"Error: target {live.pool}/{live.name} can not be made: Invalid argument\n")
    other = restore("-o", "features=layering")
    assert (other.code, "it began with other options" in other.err) == (1, True)
    assert restore("--abort").code == 0
    assert restore("--local", "-o", "features=layering").code == 0
    assert live.read() == live.content


@pytest.mark.parametrize("size", [0, 4097])
def test_an_image_that_ceph_can_not_fetch_is_refused_before_anything_is_made(
    live: Live, restore: Callable, backy: Callable, size: int
) -> None:
    os.truncate(live.directory.parent / "source.img", size)
    assert backy("-b", live.directory, "backup", "--force", "daily").code == 0
    done = restore("--local")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"Ceph fetches sectors of 512 bytes, but not {size} bytes" in done.err
    assert list(live.mark.parent.glob("*")) == []
    assert live.name not in live.images()


@pytest.mark.parametrize("target", ["plain", "./plain", "ceph-rbd:disk", "ceph-rbd:nonesuch/disk", "file:plain"])
def test_a_wrong_target_is_one_line(live: Live, backy: Callable, target: str) -> None:
    done = backy("-b", live.directory, "restore", "--live", "--local", target)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(
    "options",
    [
        ["--live", "--local", "--force"],
        ["--live", "--local", "--resume"],
        ["--live", "--local", "--group"],
        ["--live", "--local", "--salvage", "list"],
        ["--abort"],
        ["--prepare-only"],
        ["--local"],
        ["--listen", "127.0.0.1"],
    ],
)
def test_options_that_do_not_fit_are_refused(live: Live, backy: Callable, options: list[str]) -> None:
    done = backy("-b", live.directory, "restore", *options, live.target)

    assert done.code == ExitCode.USAGE
    assert "--live" in done.err
