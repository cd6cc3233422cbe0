from __future__ import annotations

import hashlib
import itertools
import random
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, ConfigError, TargetError
from backy.backup.backup import Backup
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy_sources_ceph.target import opened_target, plan_target
from tests.cluster import Cluster

NUMBERS = itertools.count()


@pytest.fixture
def revision(repository: Repository):
    """A revision of an image of five chunks: data, hole, data, the same data again, and a short one."""
    return Backup(repository, ("daily",)).run()


@pytest.fixture
def restore(repository: Repository, revision, backy: Callable, monkeypatch: pytest.MonkeyPatch, request) -> Callable:
    """Restore the revision into the cluster."""
    monkeypatch.setenv("CEPH_CONF", str(request.getfixturevalue("ceph").configuration))
    return lambda *arguments: backy("-b", repository.directory, "restore", *arguments)


class Target:
    """An image in the pool of the test, which need not be there."""

    def __init__(self, ceph: Cluster, pool: str, name: str) -> None:
        self._ceph = ceph
        self._pool = pool
        self._name = name
        self.specification = f"{pool}/{name}"

    @contextmanager
    def opened(self):
        import rbd

        with (
            self._ceph.connected() as connection,
            connection.open_ioctx(self._pool) as pool,
            rbd.Image(pool, self._name) as image,
        ):
            yield image

    def rbd(self, *words: str) -> bytes:
        command = ["rbd", "-c", str(self._ceph.configuration), *words]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def digest(self) -> str:
        return hashlib.sha256(self.rbd("export", self.specification, "-")).hexdigest()


@pytest.fixture
def target(ceph: Cluster, ceph_pool: str) -> Target:
    return Target(ceph, ceph_pool, f"restored{next(NUMBERS)}")


def digest(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


def test_a_new_image_is_what_was_backed_up_and_as_sparse(restore: Callable, target: Target, image: Path) -> None:
    done = restore(f"ceph-rbd:{target.specification}")

    assert (done.code, done.out, done.err) == (0, "", "")
    assert target.digest() == digest(image)
    found = []
    with target.opened() as opened:
        opened.diff_iterate(0, opened.size(), None, lambda *extent: found.append(extent), whole_object=True)
    assert sum(length for _, length, exists in found if exists) <= image.stat().st_size - CHUNK_SIZE


def test_an_image_has_the_features_that_are_asked_for(restore: Callable, target: Target) -> None:
    assert restore("-o", "features=layering, exclusive-lock,layering", f"ceph-rbd:{target.specification}").code == 0
    with target.opened() as opened:
        assert opened.features() == 5


def test_otherwise_it_has_those_that_rbd_gives(restore: Callable, target: Target) -> None:
    target.rbd("create", "--size", "1M", f"{target.specification}-other")
    restore(f"ceph-rbd:{target.specification}")
    ours = target.rbd("info", target.specification).decode()
    theirs = target.rbd("info", f"{target.specification}-other").decode()

    assert [line for line in ours.splitlines() if "features" in line] == [
        line for line in theirs.splitlines() if "features" in line
    ]


def test_features_that_need_others_are_refused(restore: Callable, target: Target) -> None:
    done = restore("-o", "features=object-map", f"ceph-rbd:{target.specification}")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.endswith("; does a feature need another one?\n")


def test_a_namespace_is_named_in_between(restore: Callable, target: Target, image: Path, ceph_pool: str) -> None:
    target.rbd("namespace", "create", f"{ceph_pool}/customer")
    assert restore(f"ceph-rbd:{ceph_pool}/customer/disk").code == 0

    assert hashlib.sha256(target.rbd("export", f"{ceph_pool}/customer/disk", "-")).hexdigest() == digest(image)


@pytest.mark.parametrize("size", [0, 10, CHUNK_SIZE, 16_778_216, 30 * 2**20])
def test_an_image_of_any_size_is_replaced_by_force_only(
    restore: Callable, target: Target, image: Path, size: int
) -> None:
    target.rbd("create", "--size", f"{size}B", target.specification)
    with target.opened() as opened:
        if size:
            opened.write(b"old" * (size // 3), 0)
        opened.create_snap("before")
    before = target.digest()
    refused = restore(f"ceph-rbd:{target.specification}")

    assert refused.code == 1
    assert refused.err == f"Error: target {target.specification} exists already; --force replaces what is in it\n"
    assert target.digest() == before
    assert restore("--force", f"ceph-rbd:{target.specification}").code == 0
    assert target.digest() == digest(image)
    assert hashlib.sha256(target.rbd("export", f"{target.specification}@before", "-")).hexdigest() == before


def test_a_clone_is_replaced_and_its_parent_is_not(restore: Callable, target: Target, image: Path) -> None:
    parent = f"{target.specification}-parent"
    target.rbd("create", "--size", "30M", parent)
    target.rbd("bench", "--io-type", "write", "--io-size", "1M", "--io-total", "20M", "--io-pattern", "rand", parent)
    target.rbd("snap", "create", f"{parent}@base")
    target.rbd("snap", "protect", f"{parent}@base")
    before = target.rbd("export", f"{parent}@base", "-")
    target.rbd("clone", f"{parent}@base", target.specification)

    assert restore("--force", f"ceph-rbd:{target.specification}").code == 0
    assert target.digest() == digest(image)
    assert target.rbd("export", parent, "-") == before


def test_an_image_in_use_is_not_replaced(restore: Callable, target: Target) -> None:
    target.rbd("create", "--size", "1M", target.specification)
    with target.opened() as opened:
        opened.write(b"precious", 0)
        refused = restore("--force", f"ceph-rbd:{target.specification}")

        assert refused.code == 1
        assert f"target {target.specification} is in use; is a virtual machine running on it" in refused.err
        assert opened.read(0, 8) == b"precious"
        assert opened.size() == 2**20


@pytest.mark.parametrize("there", [True, False])
def test_features_that_an_image_does_not_get_are_told(restore: Callable, target: Target, there: bool) -> None:
    """Ceph 16 leaves out fast-diff without object-map in silence."""
    if there:
        target.rbd("create", "--size", "1M", "--image-feature", "layering", target.specification)
    done = restore("--force", "-o", "features=fast-diff", f"ceph-rbd:{target.specification}")

    assert done.code == 0
    assert done.err == f"WARNING: target {target.specification} is without features that were asked for: fast-diff\n"


def test_a_job_of_this_type_says_where_its_cluster_is(
    target: Target, disks: Callable, repositories: Callable, backy: Callable, tmp_path: Path
) -> None:
    disk = disks(3 * CHUNK_SIZE)
    disk.write(CHUNK_SIZE, random.Random(1).randbytes(10_000))
    repository = repositories(disk)
    Backup(repository, ()).run()

    assert backy("-b", repository.directory, "restore", f"ceph-rbd:{target.specification}").code == 0
    assert target.digest() == hashlib.sha256(disk.rbd("export", f"{disk.pool}/{disk.name}", "-")).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["ceph-rbd:disk"], "'disk' names no RBD image: write POOL/IMAGE or POOL/NAMESPACE/IMAGE"),
        (["ceph-rbd:a/b/c/d"], "'a/b/c/d' names no RBD image"),
        (["ceph-rbd:a//b"], "'a//b' names no RBD image"),
        (["ceph-rbd:"], "'' names no RBD image"),
        (["ceph-rbd:nonesuch/disk"], "target nonesuch/disk: there is no pool 'nonesuch'"),
        (["-o", "size=1", "ceph-rbd:a/b"], "option.size: unknown key"),
        (
            ["-o", "features=fast", "ceph-rbd:a/b"],
            "option.features: not all of 'fast' are features; there are layering, ",
        ),
        (
            ["-o", "conf=/nonexistent", "ceph-rbd:a/b"],
            "target a/b: the configuration of the Ceph cluster, /nonexistent",
        ),
        (["-o", "user=nobody", "ceph-rbd:a/b"], "target a/b: connecting to the Ceph cluster: "),
    ],
)
def test_what_can_not_be_restored_to_is_one_line(restore: Callable, arguments: list[str], error: str) -> None:
    done = restore(*arguments)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert error in done.err


def test_what_is_given_counts_more_than_the_job_says() -> None:
    source = {"type": "ceph-rbd", "pool": "vms", "image": "web1", "namespace": "n", "conf": "/a", "user": "backy"}

    assert plan_target("vms/other", {}, source).title == "target vms/other"
    config = plan_target("a/b/c", {"conf": "/b", "cluster": "remote"}, source).config
    assert (config.conf, config.cluster, config.user) == ("/b", "remote", "backy")
    with pytest.raises(ConfigError):
        plan_target("other", {}, source)


def test_a_cluster_that_stops_to_answer_ends_it(
    repository: Repository, revision, durable_ceph: Cluster, tmp_path: Path, backy: Callable
) -> None:
    durable_ceph.create_pool("restored")
    conf = tmp_path / "ceph.conf"
    conf.write_text(durable_ceph.configuration.read_text() + "rados_osd_op_timeout = 1\n")
    source = {"conf": str(conf)}
    plan = plan_target("restored/disk", {}, source)
    try:
        with opened_target(plan, 2**30, force=False) as opened:
            opened.pwrite(b"written", 0)
            opened.finish()
            durable_ceph.kill("osd")
            with pytest.raises(TargetError, match="target restored/disk: the Ceph cluster does not answer"):
                opened.pwrite(b"x" * 4096, CHUNK_SIZE)
            with pytest.raises(TargetError, match="target restored/disk: the Ceph cluster does not answer"):
                opened.pwrite(b"more", 0)
    finally:
        durable_ceph.start_osd()
        durable_ceph.remove_pool("restored")


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_rbd_imports_the_raw_images_of_a_repository(
    mount: Callable, image: Path, target: Target, backy: Callable, kind: str
) -> None:
    folder = mount(kind) / "vm"
    config = JobConfig(
        format=FORMAT,
        source=SourceSection({"type": "file", "filename": str(image)}),
        storage=StorageSection.named("cow"),
    )
    Backup(Repository.initialize(folder, config), ()).run()
    target.rbd("import", backy("-b", folder, "find").out.strip(), target.specification)

    assert target.digest() == digest(image)
