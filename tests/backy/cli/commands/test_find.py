from __future__ import annotations

from pathlib import Path

from backy.repository.repository import Repository
from backy.repository.revision import Wrong


def test_find_prints_the_id_of_a_revision(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    done = backy("-b", repository.directory, "find", "--id", "-r", "daily")

    assert (done.code, done.out, done.err) == (0, f"{repository.records.history()[0].id}\n", "")


def test_find_points_to_restore_where_there_is_no_raw_image(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    done = backy("-b", repository.directory, "find")

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"'backy restore -r {repository.records.history()[0].id} TARGET' writes one" in done.err


def test_find_prints_the_path_of_a_raw_image(backy, mount, image: Path) -> None:
    directory = mount("btrfs") / "vm"
    backy("-b", directory, "init", "file", image, "--storage", "cow")
    backy("-b", directory, "backup", "daily")
    path = directory / Repository.open(directory).records.history()[0].id
    assert backy("-b", directory, "find").out == f"{path}\n"
    assert path.read_bytes() == image.read_bytes()

    path.unlink()
    missing = backy("-b", directory, "find")
    assert (missing.code, missing.err) == (1, f"Error: the raw image {path} is missing\n")


def test_find_prints_no_path_of_a_wrong_image_unless_by_its_id(backy, mount, image: Path) -> None:
    directory = mount("btrfs") / "vm"
    backy("-b", directory, "init", "file", image, "--storage", "cow")
    backy("-b", directory, "backup", "daily")
    repository = Repository.open(directory)
    (revision,) = repository.records.history()
    repository.records.write_state(revision.changed(wrong=Wrong((0,), revision.timestamp)))
    repository.link_last()
    assert not (directory / "last").is_symlink()
    assert (directory / "last.rev").is_symlink()
    assert "is wrong in 1 chunk" in backy("-b", directory, "find", "-r", "daily").err
    assert backy("-b", directory, "find", "-r", "daily", "--id").out == f"{revision.id}\n"
    done = backy("-b", directory, "find", "-r", revision.id)
    assert (done.code, done.out) == (0, f"{directory / revision.id}\n")
    assert "is wrong in 1 chunk" in done.err


def test_find_says_when_there_is_nothing_yet(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "find")

    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: no revision 'latest': the repository has no complete revision yet\n"
