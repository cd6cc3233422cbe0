"""Exports of NBD servers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import Extent, Job, Source, SourceError
from backy.config import typed
from backy_sources_qemu.config import NbdConfig
from backy_sources_qemu.network import NbdSource, backy_source
from tests.virtual import Server

MIB = 2**20
JOB = Job("web1", "job-of-web1", Path("/nowhere"))


def source(uri: str, **keys: object) -> Source:
    return backy_source(config={"type": "nbd", "uri": uri, **keys}, job=JOB)


@pytest.fixture
def served(folder: Path, serve: Callable[..., Server]) -> Callable[..., Server]:
    """Serve an image with one bitmap, `since-revision1`, in which one block is marked, as `served(*options)`."""
    path = folder / "disk.qcow2"
    for command in (
        ["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", path],
        ["qemu-img", "bitmap", "--add", path, "since-revision1"],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 2 512k 64k", path],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return lambda *options: serve("qemu-nbd", "-r", "-f", "qcow2", *options, path)


def test_holes_are_told_and_the_operator_says_whether_it_is_frozen(served: Callable[..., Server]) -> None:
    uri = served().uri
    with source(uri).snapshot("revision1", None) as snapshot:
        assert list(snapshot.extents()) == [Extent(0, MIB, data=True), Extent(MIB, 15 * MIB, data=False)]
        assert snapshot.consistency == "unknown"
        assert snapshot.changes() is None
    with source(uri, frozen=True).snapshot("revision1", None) as snapshot:
        assert snapshot.consistency == "crash"


def test_a_bitmap_tells_what_changed_since_its_revision_only(
    served: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    uri = served("-B", "since-revision1").uri
    made = source(uri, bitmap="since-{parent}")
    with made.snapshot("revision2", "revision1") as snapshot:
        assert list(snapshot.changes() or ()) == [Extent(512 * 1024, 65536, data=True)]
        assert snapshot.pread(512 * 1024, 4) == b"\2" * 4
    with made.snapshot("revision3", "revision2") as snapshot:
        assert snapshot.changes() is None
    assert "is read in full: its server has no bitmap 'since-revision2'" in caplog.text
    with made.snapshot("revision1", None) as snapshot:
        assert snapshot.changes() is None


def test_a_server_that_ends_fails_the_backup_in_one_line(served: Callable[..., Server]) -> None:
    server = served()
    with source(server.uri).snapshot("revision1", None) as snapshot:
        server.end()
        with pytest.raises(SourceError) as lost:
            snapshot.pread(0, MIB)
    assert len(str(lost.value).splitlines()) == 1


def test_the_verifier_depends_on_what_is_known() -> None:
    config = typed({"type": "nbd", "uri": "nbd://server/web1"}, NbdConfig, "source")
    assert NbdSource(config).verifier == "sample"
    assert source("nbd://server/web1", bitmap="changed").verifier == "changed"


def test_nobody_listens() -> None:
    with pytest.raises(SourceError, match=r"^source nbd\+unix:///\?socket=/none: .*No such file or directory"):
        source("nbd+unix:///?socket=/none").snapshot("revision1", None).__enter__()
