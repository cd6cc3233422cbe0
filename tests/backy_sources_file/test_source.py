from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from backy.api import CHUNK_SIZE, ConfigError, Extent, Job, SourceError
from backy_sources_file import FileSource, backy_source, backy_source_config

JOB = Job("vm", "vm-id", Path("/nowhere/vm"))


def source(path: Path) -> FileSource:
    return FileSource(path, JOB.id, "off")


def blocks(path: Path, *places: int, size: int) -> Path:
    """Write a sparse file with 64 KiB of data at `places`."""
    with path.open("wb") as stream:
        for place in places:
            stream.seek(place)
            stream.write(b"x" * 65536)
        stream.truncate(size)
    return path


@pytest.mark.parametrize(
    ("places", "size"),
    [
        ([], 0),
        ([], 1),
        ([], 1000000),
        ([0], 65536),
        ([0], 2**20),
        ([2**20 - 65536], 2**20),
        ([0, 2**19], 2**20 + 5),
    ],
)
def test_extents_are_where_the_file_has_data_and_holes(tmp_path: Path, places: list[int], size: int) -> None:
    expected: list[Extent] = []
    end = 0
    for place in places:
        if place > end:
            expected.append(Extent(end, place - end, data=False))
        expected.append(Extent(place, 65536, data=True))
        end = place + 65536
    if size > end:
        expected.append(Extent(end, size - end, data=False))

    with source(blocks(tmp_path / "disk", *places, size=size)).snapshot("a", None) as snapshot:
        assert snapshot.size == size
        assert list(snapshot.extents()) == expected
        assert snapshot.changes() is None


def test_holes_and_data_are_read_exactly(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 2**20, size=2**21)
    with source(path).snapshot("a", None) as snapshot:
        assert snapshot.pread(2**20 - 10, 20) == bytes(10) + b"x" * 10
        assert snapshot.pread(2**21 - 1, 1) == b"\0"


def test_a_block_device_is_all_data(tmp_path: Path, loop_device) -> None:
    device = loop_device(blocks(tmp_path / "disk", 0, size=CHUNK_SIZE))
    with source(device).snapshot("a", None) as snapshot:
        assert snapshot.size == CHUNK_SIZE
        assert list(snapshot.extents()) == [Extent(0, CHUNK_SIZE, data=True)]
        assert snapshot.pread(65530, 10) == b"x" * 6 + bytes(4)


def test_what_can_not_be_an_image_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, cause in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "is a directory"),
        (tmp_path / "fifo", "neither a file nor a block device"),
        (Path("/dev/null"), "neither a file nor a block device"),
    ]:
        with pytest.raises(SourceError, match=f"source {path}.*{cause}"):
            source(path).snapshot("a", None).__enter__()


def test_an_image_that_may_not_be_read_is_refused_by_name(tmp_path: Path, as_nobody) -> None:
    path = blocks(tmp_path / "disk", size=1)
    path.chmod(0o000)

    with as_nobody(), pytest.raises(SourceError, match=f"source {path}: Permission denied"):
        source(path).snapshot("a", None).__enter__()


def test_reading_what_shrank_is_an_error(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 0, size=2**20)
    with source(path).snapshot("a", None) as snapshot:
        os.truncate(path, 2**19 + 1)
        with pytest.raises(SourceError, match=f"shrank below {2**20} bytes"):
            snapshot.pread(2**19, 100)


def test_a_trailing_hole_that_shrank_is_an_error(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 0, size=2**20)
    with source(path).snapshot("a", None) as snapshot:
        os.truncate(path, 2**19)
        with pytest.raises(SourceError, match="shrank"):
            list(snapshot.extents())


def test_data_that_goes_between_two_looks_is_an_error(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 0, 2**19, size=2**20)
    with source(path).snapshot("a", None) as snapshot:
        extents = iter(snapshot.extents())
        next(extents)
        next(extents)
        os.truncate(path, 100)
        with pytest.raises(SourceError, match="shrank"):
            list(extents)


def test_data_that_is_cut_right_before_its_end_is_looked_for_is_an_error(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 0, size=2**20)
    with source(path).snapshot("a", None) as snapshot:
        os.truncate(path, 0)
        with pytest.raises(SourceError, match="shrank"):
            snapshot._next(os.SEEK_HOLE, 0)


def test_what_is_read_after_the_end_of_the_backup_is_an_error(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 0, size=2**20)
    with source(path).snapshot("a", None) as snapshot:
        pass
    for read in (
        lambda: snapshot.pread(0, 10),
        lambda: list(snapshot.extents()),
        lambda: snapshot._next(os.SEEK_HOLE, 0),
    ):
        with pytest.raises(SourceError, match="Bad file descriptor"):
            read()


def test_what_grew_is_read_as_far_as_it_was_when_the_backup_began(tmp_path: Path) -> None:
    path = blocks(tmp_path / "disk", 0, size=65536)
    with source(path).snapshot("a", None) as snapshot:
        blocks(path, 0, 65536, size=2**20)
        assert list(snapshot.extents()) == [Extent(0, 65536, data=True)]


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert backy_source_config("disk.img") == {"filename": str(tmp_path / "disk.img")}


@pytest.mark.parametrize("argument", ["", "a\0b"])
def test_what_is_no_path_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="is the path of an image file or a block device"):
        backy_source_config(argument)


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"type": "file"}, "config.source: the key 'filename' is missing"),
        ({"type": "file", "filename": 1}, "config.source.filename: expected a path, got 1"),
        ({"type": "file", "filename": "disk.img"}, "config.source.filename: 'disk.img' is no absolute path"),
        ({"type": "file", "filename": "/x", "cow": True}, "config.source.cow: unknown key"),
    ],
)
def test_a_wrong_section_is_refused_with_the_path_of_its_key(config: dict[str, object], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        backy_source(config=config, job=JOB)


@pytest.mark.parametrize(
    ("freeze", "verifier"), [("off", "full"), ("false", "full"), ("during-backup", "full"), ("keep", "changed")]
)
def test_a_section_as_it_is_written_makes_a_source_that_is_verified_as_suits_it(freeze: str, verifier: str) -> None:
    config = yaml.safe_load(f"{{type: file, filename: /x, freeze: {freeze}}}")
    assert backy_source(config=config, job=JOB).verifier == verifier


@pytest.mark.parametrize("freeze", ["on", "always", "''"])
def test_a_wrong_way_to_freeze_is_refused_with_those_that_there_are(freeze: str) -> None:
    config = yaml.safe_load(f"{{type: file, filename: /x, freeze: {freeze}}}")
    with pytest.raises(ConfigError, match=r"config.source.freeze: .* is none of off, during-backup, keep"):
        backy_source(config=config, job=JOB)
