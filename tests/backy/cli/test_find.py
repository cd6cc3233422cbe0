from __future__ import annotations

from backy.repository import Repository


def test_find_prints_the_id_of_a_revision(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    done = backy("-b", repository.directory, "find", "--id", "-r", "daily")

    assert (done.code, done.out, done.err) == (0, f"{repository.history()[0].id}\n", "")


def test_find_points_to_restore_where_there_is_no_raw_image(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    done = backy("-b", repository.directory, "find")

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"'backy restore -r {repository.history()[0].id} TARGET' writes one" in done.err


def test_find_prints_the_path_of_a_raw_image(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    path = repository.directory / repository.history()[0].id
    path.write_bytes(b"raw")

    assert backy("-b", repository.directory, "find").out == f"{path}\n"


def test_find_says_when_there_is_nothing_yet(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "find")

    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: no revision 'latest': the repository has no complete revision yet\n"
