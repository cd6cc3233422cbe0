from __future__ import annotations

from pathlib import Path

import pytest

from backy.repository.repository import Repository


def test_init_makes_a_repository_that_can_be_backed_up(backy, tmp_path: Path, image: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = backy("-b", "vm", "init", "file", image.name)

    assert (done.code, done.out, done.err) == (0, f"Made a repository in {tmp_path}/vm\n", "")
    config = Repository.open(tmp_path / "vm").config
    assert config.source.written == {"type": "file", "filename": str(image)}
    assert config.storage.written == {"type": "chunked"}
    assert backy("-b", "vm", "backup", "daily").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["fiel", "x"], 1, "no source 'fiel'; did you mean 'file'?"),
        (["file", ""], 1, "SOURCE of the type 'file' is the path of an image file or a block device"),
        (["file", "x", "--storage", "chonked"], 1, "no storage 'chonked'; did you mean 'chunked'?"),
        (["file"], 2, "Missing argument 'SOURCE'"),
    ],
)
def test_what_can_not_be_made_is_one_line_and_leaves_nothing(
    backy, tmp_path: Path, arguments: list[str], code: int, error: str
) -> None:
    done = backy("-b", tmp_path / "vm", "init", *arguments)

    assert done.code == code
    assert error in done.err.splitlines()[-1]
    assert not (tmp_path / "vm").exists()


def test_a_repository_is_never_made_over_another(backy, repository: Repository, tree) -> None:
    before = tree(repository.directory)
    done = backy("-b", repository.directory, "init", "file", "/elsewhere")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "has a repository already" in done.err
    assert tree(repository.directory) == before


def test_a_repository_of_backy_2_is_never_written_to(backy, tmp_path: Path, tree) -> None:
    directory = tmp_path / "vm"
    (directory / "chunks").mkdir(parents=True)
    (directory / "chunks" / "store").write_bytes(b"v2")
    (directory / "config").write_text("{type: file, filename: /srv/vm.img}\n")
    (directory / "KpXqR4vTn8sWzYb2Lm6HcD").write_text('{"mapping": {}, "size": 0}')
    (directory / "KpXqR4vTn8sWzYb2Lm6HcD.rev").write_text("uuid: KpXqR4vTn8sWzYb2Lm6HcD\n")
    before = tree(directory)

    for words in (["init", "file", "x"], ["backup", "daily"], ["restore", tmp_path / "out"], ["purge"], ["status"]):
        done = backy("-b", directory, *words)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert "has a repository already" in done.err or "is a repository of backy 2: " in done.err
    assert tree(directory) == before
    assert not (tmp_path / "out").exists()
