from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.repository.repository import Repository


def test_init_makes_a_repository_that_can_be_backed_up(backy, tmp_path: Path, image: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = backy("-b", "vm", "init", "file", image.name)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"Made a repository in {tmp_path}/vm"
    config = Repository.open(tmp_path / "vm").config
    assert config.source == {"type": "file", "filename": str(image)}
    assert config.storage == {"type": "chunked"}
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


SOURCES = """
    from contextlib import contextmanager
    from backy.api import SourceBusyError, SourceError
    from backy.hookspecs import hookimpl
    class Snapshot:
        size = 0
        def extents(self): return []
        def changes(self): return None
        def pread(self, length, offset): return b""
    class Source:
        verifier = "full"
        def __init__(self, how): self.how = how
        def retain(self, revision_ids): raise AssertionError("there may be revisions elsewhere")
        @contextmanager
        def snapshot(self, revision_id, parent):
            if self.how == "gone": raise SourceError("no such machine")
            if self.how == "busy": raise SourceBusyError("another backup")
            if self.how == "odd": raise KeyError("hat")
            try:
                yield Snapshot()
            except BaseException:
                raise
            else:
                raise AssertionError("no revision is complete, so nothing is to be kept for one")
    @hookimpl
    def backy_source(config): return Source(config["how"])
    @hookimpl
    def backy_source_config(argument): return {"how": argument}
"""


@pytest.mark.parametrize(
    ("how", "warned"),
    [
        ("there", None),
        ("busy", None),
        ("gone", "WARNING: nothing can be backed up as it is: no such machine"),
        (
            "odd",
            "WARNING: nothing can be backed up as it is: source 'machine' of acme 1.0 is broken: .*KeyError: 'hat'",
        ),
    ],
)
def test_a_source_that_can_not_be_opened_is_warned_of(
    backy, distribution, tmp_path: Path, how: str, warned: str | None
) -> None:
    distribution("acme", {"backy.sources": ["machine"]}, SOURCES)
    done = backy("-b", tmp_path / "vm", "init", "machine", how)
    assert (done.code, done.out.splitlines()[0]) == (0, f"Made a repository in {tmp_path}/vm")
    assert re.fullmatch(f"{warned}\n" if warned else "", done.err)


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "dangling link", "unreadable below"])
def test_an_image_that_can_not_be_opened_is_warned_of(backy, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "vm.img"
    if kind == "directory":
        image.mkdir()
    elif kind == "pipe":
        os.mkfifo(image)
    elif kind == "dangling link":
        image.symlink_to("nowhere")
    elif kind == "unreadable below":
        (tmp_path / "file").touch()
        image = tmp_path / "file/vm.img"
    done = backy("-b", tmp_path / "vm", "init", "file", image)
    assert done.code == 0
    assert done.err.startswith(f"WARNING: nothing can be backed up as it is: source {image}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["fiel", "x"], 1, "no source 'fiel'; did you mean 'file'?"),
        (["file", ""], 1, "SOURCE of the type 'file' is the path of an image file or a block device"),
        (["file", "x", "--storage", "chonked"], 1, "no storage 'chonked'; did you mean 'chunked'?"),
        (["file"], 2, "SOURCE is missing"),
    ],
)
def test_what_can_not_be_made_is_one_line_and_leaves_nothing(
    backy, tmp_path: Path, arguments: list[str], code: int, error: str
) -> None:
    done = backy("-b", tmp_path / "vm", "init", *arguments)

    assert done.code == code
    assert error in done.err.splitlines()[-1]
    assert not (tmp_path / "vm").exists()


def test_options_become_keys_of_sections(backy, tmp_path: Path, image: Path) -> None:
    given = ["storage.compression=5", "verifier.type=sample", "verifier.percent=7", "expire=x"]
    options = [word for option in given[:3] for word in ("-o", option)]
    schedule = ["-o", "schedule.daily={interval: 1d, keep: 7}", "-o", "source.freeze=keep"]
    assert backy("-b", tmp_path / "vm", "init", "file", image, *options, *schedule).code == 0

    config = Repository.open(tmp_path / "vm").config
    assert config.storage == {"type": "chunked", "compression": 5}
    assert config.verifier
    assert config.verifier == [{"type": "sample", "percent": 7}]
    assert config.schedule
    assert config.schedule["daily"].keep == 7
    assert config.source
    assert config.source == {"type": "file", "filename": str(image), "freeze": "keep"}
    for option, said in [
        (given[3], "is not of the form"),
        ("id.x=1", "these do: hooks"),
        ("storage.x=1", "storage.x: unknown key"),
    ]:
        done = backy("-b", tmp_path / "other", "init", "file", image, "-o", option)
        assert done.code != 0
        assert said in done.err
        assert not (tmp_path / "other").exists()


WEB = """
    from backy.api import ConfigError
    from backy.hookspecs import hookimpl
    import backy_storages_chunked

    @hookimpl
    def backy_storage(config, job):
        return backy_storages_chunked.backy_storage({"type": "chunked", "compression": config["level"]}, job)

    @hookimpl
    def backy_storage_config(argument):
        if not argument.isdigit():
            raise ConfigError("ARGUMENT is a level")
        return {"level": int(argument)}
"""


def test_a_storage_says_what_its_argument_means(backy, distribution, tmp_path: Path, image: Path) -> None:
    distribution("leveled", {"backy.storages": ["leveled"]}, WEB)
    assert backy("-b", tmp_path / "vm", "init", "file", image, "--storage", "leveled:3").code == 0
    assert Repository.open(tmp_path / "vm").config.storage == {"type": "leveled", "level": 3}
    for storage, said in [("leveled:x", "ARGUMENT is a level"), ("chunked:x", "no hook backy_storage_config")]:
        done = backy("-b", tmp_path / "other", "init", "file", image, "--storage", storage)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert said in done.err
        assert not (tmp_path / "other").exists()


def test_a_repository_without_a_source_is_a_copy(backy, repository: Repository, tmp_path: Path, image: Path) -> None:
    assert backy("-b", repository.directory, "backup", "daily").code == 0
    repository.write_config(msgspec.structs.replace(repository.config, source=None))

    done = backy("-b", repository.directory, "backup", "daily")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "add a section to its 'config', such as 'source: {type: file" in done.err
    assert backy("-b", repository.directory, "restore", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    # without a schedule nothing expires, and nothing asks for the source
    for words in ("expire", "status", "scrub light", "verify", "release", "forget -r 0 --force --reason test", "purge"):
        done = backy("-b", repository.directory, *words.split())
        assert (done.code, done.err) == (0, ""), words


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
