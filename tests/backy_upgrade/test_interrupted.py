"""An upgrade that is killed at any step, or that finds the disk full, goes on when it is called again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backy.cli.main import main
from backy.reading import open_repository
from backy_upgrade.images import opened
from backy_upgrade.records import is_old, old_revisions
from tests.backy_upgrade.conftest import files_of, sums_of
from tests.backy_upgrade.test_variants import BASE, ONE, TWO
from tests.backy_upgrade.writer import CHUNK, Old

CALLS = ("rename", "replace", "link", "unlink", "rmdir", "fsync", "fdatasync", "mkdir", "symlink")
"""What brings a directory from one state to the next."""


def killed(words: list[object], number: int | None) -> int:
    """Run a command in a process that is killed instead of such a call; return how many it has made.

    That is -1 if it was killed.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        made = 0

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def instead(*arguments: Any, **keys: Any) -> Any:
                nonlocal made
                if made == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1
                return call(*arguments, **keys)

            return instead

        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            main([str(word) for word in words])
        finally:
            os.write(writing, b"%d" % made)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read()
    return -1 if os.WIFSIGNALED(os.waitpid(pid, 0)[1]) else int(text)


def works_as_backy_2(directory: Path, images: dict[str, str], *, some: bool = False) -> bool:
    """Tell whether backy 2 would find all revisions in a directory, or `some`, each with its image."""
    if not (directory / "config").exists() or not is_old(directory):
        return False
    found = {}
    for revision in old_revisions(directory).complete:
        try:
            with opened(directory, revision) as image:
                content = sha256(image.pread(0, image.size)).hexdigest()
                found[revision.id] = "" if image.damaged else content
        except OSError:
            found[revision.id] = ""
    return found == images or (some and found.items() <= images.items())


def written(directory: Path) -> dict[str, str]:
    old = Old(directory)
    images = {f"revision-{number}": image for number, image in enumerate([ONE, TWO, BASE[3] + ONE[:CHUNK]])}
    for number, (name, image) in enumerate(images.items()):
        old.add(name, image, chunked=number < 2, trust="distrusted" if number == 1 else "trusted")
    return {name: sha256(image).hexdigest() for name, image in images.items()}


def is_whole(directory: Path, images: dict[str, str]) -> bool:
    """Tell whether backy 2 would find an image of each revision that it has, and of all others there is a new one."""
    folder = directory if works_as_backy_2(directory, images, some=True) else directory / "backy-2"
    new = next((path for path in (directory / "backy-3").glob("*/config")), None)
    made = {one.id for one in open_repository(new.parent).revisions()} if new else set()
    left = {one.id for one in old_revisions(folder).complete}
    # the names change when all are made
    changing = (directory / "backy-3.done").exists() or not is_old(directory)
    return works_as_backy_2(folder, images, some=True) and (changing or left | made == images.keys())


@pytest.mark.parametrize("options", [(), ("--reclaim",)])
def test_killed_at_any_step_it_goes_on(options, tmp_path, rounds, backy):
    images = written(tmp_path / "old")
    before = files_of(tmp_path / "old")
    directory = tmp_path / "vm"
    subprocess.run(["cp", "-a", tmp_path / "old", directory], check=True)
    steps = killed(["-b", directory, "upgrade", *options], None)
    assert steps > 100
    count = rounds(5, 50)
    # how many calls there are varies a little
    for number in [(steps - 20) * turn // count + turn % 7 for turn in range(count)]:
        shutil.rmtree(directory)
        subprocess.run(["cp", "-a", tmp_path / "old", directory], check=True)
        # what was never linked has to be as it was, too
        assert killed(["-b", directory, "upgrade", *options], number) == -1

        places = (directory, directory / "backy-2")
        whole = is_whole(directory, images) if options else any(works_as_backy_2(place, images) for place in places)
        assert whole, f"after {number} steps"
        # the second one is killed as well, on its way
        killed(["-b", directory, "upgrade", *options], number // 2 + 3)
        done = backy("-b", directory, "upgrade", *options[: number % 2])
        assert done.code == 0, f"after {number} steps: {done.err}"
        assert sums_of(directory) == list(images.values())
        trust = backy("-b", directory, "status").out
        assert trust.count("distrusted") == 1
        names = {path.name for path in directory.iterdir()}
        assert not [name for name in names if name.startswith("backy-3") or name in images]
        left = files_of(directory / "backy-2")
        assert left.items() <= before.items() if options else left == before


def test_what_backy_2_removes_meanwhile_costs_no_more(tmp_path, backy, monkeypatch):
    """After an interruption backy 2 went on and forgot a revision. Nobody asked to remove its chunks."""
    images = written(tmp_path / "vm")
    from backy_upgrade import upgrade

    with monkeypatch.context() as patch:
        patch.setattr(upgrade.Upgrade, "_compared", lambda *_: 1 / 0)
        assert backy("-b", tmp_path / "vm", "upgrade").code == 1
    for path in (tmp_path / "vm").glob("revision-0*"):
        path.unlink()
    before = files_of(tmp_path / "vm/chunks")

    done = backy("-b", tmp_path / "vm", "upgrade")

    assert done.out == "vm: 3 revisions are upgraded; backy 2 has 1 revision less now, which going back would lose\n"
    assert sums_of(tmp_path / "vm") == list(images.values())
    assert files_of(tmp_path / "vm/backy-2/chunks") == before


def test_a_real_process_that_is_killed(tmp_path):
    """As above, whatever its threads and the C library do at that moment."""
    images = written(tmp_path / "vm")
    command = [Path(sys.executable).with_name("backy"), "-b", tmp_path / "vm", "upgrade"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        # when it tells that it begins with a revision
        process.stderr.readline()
        process.kill()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert sums_of(tmp_path / "vm") == list(images.values())


def test_a_full_disk_is_one_line(mount, backy):
    root = mount("ext4", 96 * 2**20)
    images = [os.urandom(CHUNK) * 2, *(os.urandom(CHUNK) for _ in range(3))]
    old = Old(root / "vm")
    for number, image in enumerate(images):
        old.add(f"revision-{number}", image)
    before = files_of(root / "vm")
    with (root / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, os.statvfs(root).f_bavail * os.statvfs(root).f_frsize - 7 * 2**20)

    full = backy("-b", root / "vm", "upgrade")

    assert full.code == 28
    assert [line for line in full.err.splitlines() if line.startswith("Error:")] == full.err.splitlines()[-1:]
    assert "No space left on device" in full.err.splitlines()[-1]
    assert files_of(root / "vm" / "backy-2") == before
    (root / "ballast").unlink()
    done = backy("-b", root / "vm", "upgrade")
    assert done.code == 0, done.err
    assert sums_of(root / "vm") == [sha256(image).hexdigest() for image in images]
