from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.repository.repository import Repository


def test_init_makes_a_repository_that_can_be_backed_up(backy, tmp_path: Path, image: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = backy("-b", "vm", "init", "file", image.name)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"Made a repository in {tmp_path}/vm"
    config = Repository.open(tmp_path / "vm").config
    assert config.source.written == {"type": "file", "filename": str(image)}
    assert config.storage.written == {"type": "chunked"}
    assert backy("-b", "vm", "backup", "daily").code == 0


@pytest.mark.parametrize("chosen", [("ext4", "chunked", False), ("btrfs", "chunked", True), ("btrfs", "cow", False)])
def test_init_prints_the_next_steps(
    backy, mount: Callable[..., Path], tmp_path: Path, image: Path, chosen: tuple[str, str, bool]
) -> None:
    kind, storage, told = chosen
    directory = mount(kind) / "web 1"
    printed = backy("-b", directory, "init", "file", image, "--storage", storage).out.splitlines()

    assert len(printed) == 3 + told
    assert all("'--storage cow'" in line for line in printed[3:])
    steps = [re.search(r"backy .*?(?=,|$)", line) for line in printed[1:3]]
    backup, show = [shlex.split(step[0]) for step in steps if step]
    assert backup[:3] == show[:3] == ["backy", "-b", str(directory)]
    assert backy(*backup[1:]).code == 0
    (tmp_path / "images").mkdir()
    command = [str(tmp_path / "images") if word == "MOUNTPOINT" else word for word in show]
    subprocess.run([Path(sys.executable).with_name("backy"), *command[1:]], check=True)
    try:
        assert (tmp_path / "images/last").read_bytes() == image.read_bytes()
    finally:
        assert backy("unmount", tmp_path / "images").code == 0
    assert {path.name for path in directory.iterdir() if "reflink" in path.name} == set()


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
