from __future__ import annotations

from pathlib import Path

from backy.repository.repository import Repository


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


def test_find_says_when_there_is_nothing_yet(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "find")

    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: no revision 'latest': the repository has no complete revision yet\n"
