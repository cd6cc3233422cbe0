"""Restores to qcow2 files and to exports."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.repository.repository import Repository
from tests.virtual import Server, Virtual, content_of


@pytest.fixture
def restore(backy: Callable, repository: Repository) -> Callable:
    """Restore an image, whose last chunk ends within a sector, as `restore(target, ...)`."""
    assert backy("-b", repository.directory, "backup", "daily").code == 0
    return lambda *words: backy("-b", repository.directory, "restore", *words)


@pytest.fixture
def export(serve: Callable[..., Server]) -> Callable[..., str]:
    """Serve a file as `export(path, *options)`, and return the URI."""
    return lambda path, *options: serve("nbdkit", "file", path, *options).uri


def test_a_new_qcow2_file_has_the_image_and_its_holes(restore: Callable, image: Path, folder: Path) -> None:
    target = folder / "restored.qcow2"

    done = restore(f"qemu:{target}")

    assert (done.code, done.err) == (0, "")
    expected = image.read_bytes()
    found = content_of(target, "qcow2", folder / "content")
    assert (len(found), found[: len(expected)]) == (-(-len(expected) // 512) * 512, expected)
    assert not any(found[len(expected) :])
    assert target.stat().st_blocks * 512 < 14 * 2**20
    assert target.stat().st_mode & 0o777 == 0o600
    assert not target.with_name("restored.qcow2.incomplete").exists()


def test_an_existing_file_is_replaced_by_force_only_and_keeps_its_owner(
    restore: Callable, image: Path, folder: Path
) -> None:
    target = folder / "restored.qcow2"
    target.write_bytes(b"precious")
    os.chown(target, 7, 8)
    target.chmod(0o640)

    refused = restore(f"qemu:{target}")
    assert refused.code == 1
    assert refused.err == f"Error: target {target} exists already; --force replaces it\n"
    assert target.read_bytes() == b"precious"

    assert restore("--force", f"qemu:{target}").code == 0
    status = target.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (7, 8, 0o640)
    assert content_of(target, "qcow2", folder / "content")[: 2**20] == image.read_bytes()[: 2**20]


def test_a_file_that_a_machine_uses_is_refused(restore: Callable, machine: Virtual) -> None:
    before = machine.content()
    refused = restore("--force", f"qemu:{machine.image}")
    assert refused.code == 1
    assert refused.err.endswith("is in use: a running QEMU has it open; shut the machine down first\n")
    assert machine.content() == before


def test_a_restore_that_fails_leaves_the_file_that_was_there(
    restore: Callable, repository: Repository, spoil: Callable, folder: Path
) -> None:
    target = folder / "restored.qcow2"
    target.write_bytes(b"precious")
    (revision,) = repository.records.history()
    spoil(repository, revision, 0)

    assert restore("--force", f"qemu:{target}").code != 0
    assert target.read_bytes() == b"precious"
    assert {path.name for path in folder.iterdir()} == {"restored.qcow2"}


def test_what_is_no_place_for_a_file_is_refused_in_one_line(restore: Callable, folder: Path) -> None:
    (folder / "folder.qcow2").mkdir()
    (folder / "link.qcow2").symlink_to("elsewhere.qcow2")
    (folder / "half.qcow2.incomplete").touch()
    for name, words in (
        ("disk.raw", "is no name like disk.qcow2"),
        ("folder.qcow2", "Is a directory"),
        ("link.qcow2", "Too many levels of symbolic links"),
        ("half.qcow2", "half.qcow2.incomplete exists: unless another restore writes to it now, remove it"),
        ("nowhere/disk.qcow2", "No such file or directory"),
    ):
        refused = restore(f"qemu:{folder / name}")

        assert (refused.code, len(refused.err.splitlines())) == (1, 1)
        assert words in refused.err
    assert not (folder / "elsewhere.qcow2").exists()
    # and there are no options
    refused = restore("-o", "preallocation=full", f"qemu:{folder}/disk.qcow2")
    assert refused.err == "Error: there is no option 'preallocation' for this target; it has none\n"


@pytest.mark.parametrize("whole", [False, True], ids=["any-server", "whole-blocks"])
def test_an_export_gets_the_image_and_zeroes_behind_it(
    restore: Callable, serve: Callable, image: Path, folder: Path, whole: bool
) -> None:
    target, expected = folder / "target", image.read_bytes()
    target.write_bytes(random.Random(1).randbytes(2**20) * 18)
    policy = ["--filter=blocksize-policy", "blocksize-minimum=4096", "blocksize-error-policy=error"]
    uri = serve("nbdkit", *policy[:whole], "file", target, *policy[1 : 3 * whole]).uri

    refused = restore(f"nbd:{uri}")
    assert refused.code == 1
    assert refused.err.endswith("has data, or does not tell that it has none; --force replaces all of it\n")
    assert target.read_bytes()[: 2**20] == random.Random(1).randbytes(2**20)

    assert restore("--force", f"nbd:{uri}").code == 0
    assert target.read_bytes() == expected.ljust(18 * 2**20, b"\0")


def test_an_empty_export_needs_no_force(restore: Callable, export: Callable, image: Path, folder: Path) -> None:
    target, expected = folder / "target", image.read_bytes()
    target.touch()
    os.truncate(target, len(expected))

    assert restore(f"nbd:{export(target)}").code == 0
    assert target.read_bytes() == expected


def test_an_export_that_can_not_take_the_image_is_refused(restore: Callable, export: Callable, folder: Path) -> None:
    (folder / "small").write_bytes(bytes(4096))
    (folder / "large").write_bytes(bytes(32 * 2**20))
    for uri, words in (
        (export(folder / "small"), "has 4096 bytes, and the image has "),
        (export(folder / "large", "-r"), "is read-only"),
        ("nbd+unix:///?socket=/nowhere", "No such file or directory"),
        ("http://server", "is no URI such as nbd://HOST/EXPORT"),
    ):
        refused = restore("--force", f"nbd:{uri}")
        assert (refused.code, len(refused.err.splitlines())) == (1, 1), refused.err
        assert words in refused.err
