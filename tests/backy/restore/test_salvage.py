from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.errors import ConfigError, DamageError
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.restore.restore import mapfile, salvaged

HEAD = "# Mapfile. Created by backy\n# current_pos  current_status  current_pass\n"


@pytest.fixture
def revision(repository: Repository) -> Revision:
    return Backup(repository, ("daily",)).run()


def test_damaged_chunks_are_zeroes_and_all_others_are_as_they_were(
    repository: Repository, revision: Revision, image: Path, tmp_path: Path, spoil
) -> None:
    spoil(repository, revision, 2)
    spoil(repository, revision, 4).unlink()
    with (
        pytest.raises(
            DamageError,
            match=f"3 of 5 chunks could not be read.*first is chunk [0-9a-f]{{12}} at byte {2 * CHUNK_SIZE}: ",
        ),
        repository.image(revision) as stored,
        salvaged(stored, tmp_path / "map", "target", repository) as readable,
    ):
        found = readable.pread(0, readable.size)

    assert found == image.read_bytes()[: 2 * CHUNK_SIZE] + bytes(2 * CHUNK_SIZE + 1000)
    assert (tmp_path / "map").read_text() == (
        HEAD + "0x00000000     +               1\n#      pos        size  status\n"
        "0x00000000  0x00800000  +\n0x00800000  0x008003E8  -\n"
    )


def test_a_sound_image_is_read_as_a_whole(repository: Repository, revision: Revision, tmp_path: Path) -> None:
    with repository.image(revision) as stored, salvaged(stored, tmp_path / "map", "target", repository) as readable:
        readable.pread(0, readable.size)

    assert (tmp_path / "map").read_text().splitlines()[-1] == "0x00000000  0x010003E8  +"


def test_nothing_is_said_to_be_read_by_a_salvage_that_was_interrupted(
    repository: Repository, revision: Revision, tmp_path: Path
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        repository.image(revision) as stored,
        salvaged(stored, tmp_path / "map", "target", repository),
    ):
        raise KeyboardInterrupt

    assert (tmp_path / "map").read_text().splitlines()[-1] == "0x00000000  0x010003E8  ?"


def test_without_a_list_nothing_is_salvaged(repository: Repository, revision: Revision) -> None:
    with repository.image(revision) as stored, salvaged(stored, None, "target", repository) as readable:
        assert readable is stored


def test_the_list_does_not_go_into_the_repository(repository: Repository, revision: Revision) -> None:
    before = (repository.directory / "config").read_bytes()
    with (
        pytest.raises(ConfigError, match="lies inside of the repository"),
        repository.image(revision) as stored,
        salvaged(stored, repository.directory / "config", "target", repository),
    ):
        pass
    assert (repository.directory / "config").read_bytes() == before


@pytest.mark.parametrize("name", ["target", "./target", "symbolic", "hard"])
def test_the_list_does_not_go_into_the_target(
    repository: Repository, revision: Revision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("target").write_text("as it was")
    Path("symbolic").symlink_to("target")
    Path("hard").hardlink_to("target")
    with (
        pytest.raises(ConfigError, match="is the target"),
        repository.image(revision) as stored,
        salvaged(stored, Path(name), "target", repository),
    ):
        pass
    assert Path("target").read_text() == "as it was"


def test_the_list_is_a_file(repository: Repository, revision: Revision) -> None:
    with (
        pytest.raises(ConfigError, match="/dev/null is no file"),
        repository.image(revision) as stored,
        salvaged(stored, Path("/dev/null"), "target", repository),
    ):
        pass


@given(st.integers(0, 9 * CHUNK_SIZE), st.sets(st.integers(0, 9)))
def test_a_list_has_each_byte_once_and_in_order(size: int, damaged: set[int]) -> None:
    end = 0
    last = ""
    for line in mapfile(size, damaged, "+").splitlines()[4:]:
        position, length, status = line.split()
        assert int(position, 16) == end
        assert status != last
        for at in range(end, end + int(length, 16), CHUNK_SIZE):
            assert (status == "-") == (at // CHUNK_SIZE in damaged)
        end += int(length, 16)
        last = status
    assert end == size
