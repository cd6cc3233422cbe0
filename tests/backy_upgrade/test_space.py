"""How much space an upgrade takes, and how old revisions make room for new ones."""

import os
from hashlib import sha256

import pytest

from backy_upgrade.records import old_revisions
from tests.backy_upgrade.conftest import files_of, sums_of
from tests.backy_upgrade.test_variants import BASE, ONE, TWO, damage, revisions_of
from tests.backy_upgrade.writer import CHUNK, Old


@pytest.mark.parametrize("name", ["chunked", "cowfile-2.2"])
def test_a_dry_run_tells_what_it_takes_and_changes_nothing(name, real, backy):
    found = real(name)
    before = {path: path.lstat() for path in found.directory.rglob("*")}

    done = backy("-b", found.directory, "upgrade", "--dry-run")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{name}: 3 revisions would be upgraded; the old files take ")
    after = {path: path.lstat() for path in found.directory.rglob("*")}
    assert [(path, status.st_mtime_ns, status.st_ctime_ns) for path, status in after.items()] == [
        (path, status.st_mtime_ns, status.st_ctime_ns) for path, status in before.items()
    ]


def test_the_figures_are_those_of_the_files(tmp_path, backy):
    old = Old(tmp_path / "vm")
    images = [os.urandom(CHUNK) * 2, os.urandom(CHUNK)]
    for number, image in enumerate(images):
        old.add(f"revision-{number}", image, chunked=number == 0)

    done = backy("-b", old.directory, "upgrade", "--dry-run")
    both = backy("-b", old.directory, "upgrade", "--dry-run", "--storage", "cow")

    assert "the old files take 8.0 MiB, the new ones up to about 8.0 MiB, both 16.0 MiB; " in done.out
    assert "the old files take 8.0 MiB, the new ones up to about 8.0 MiB, both 16.0 MiB; " in both.out
    assert done.out.endswith(" are free\n")


def test_what_is_upgraded_is_told(real, backy):
    found = real("cowfile")
    backy("-b", found.directory, "upgrade")

    assert backy("-b", found.directory, "upgrade", "--dry-run").out == "cowfile is a repository of backy 3\n"


@pytest.mark.parametrize("name", ["chunked", "cowfile", "chunked-2.2", "cowfile-2.2"])
def test_each_old_revision_makes_room_once_the_new_one_was_compared(name, real, backy, monkeypatch):
    found = real(name)
    left = []
    from backy_upgrade import upgrade

    def watched(*arguments):
        left.append([len(old_revisions(folder).complete) for folder in (found.directory, found.directory / "backy-2")])
        return imported(*arguments)

    imported = upgrade.import_image
    monkeypatch.setattr(upgrade, "import_image", watched)

    done = backy("-b", found.directory, "upgrade", "--reclaim")

    assert (done.code, done.out) == (
        0,
        f"{name}: 3 revisions are upgraded; backy 2 has 3 revisions less now, which going back would lose\n",
    )
    assert left == [[3, 3], [2, 2], [1, 1]]
    assert sums_of(found.directory) == found.sums
    assert not [
        path for path in (found.directory / "backy-2").rglob("*") if path.suffix in {".rev", ".lzo"} and path.is_file()
    ]
    assert backy("-b", found.directory, "upgrade", "--finish").code == 0
    assert backy("-b", found.directory, "audit").code == 0


def test_it_is_done_where_there_is_no_room_for_both(mount, backy):
    root = mount("ext4", 96 * 2**20)
    images = [os.urandom(CHUNK) for _ in range(8)]
    old = Old(root / "vm")
    for number, image in enumerate(images):
        old.add(f"revision-{number}", image)
    with (root / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, os.statvfs(root).f_bavail * os.statvfs(root).f_frsize - 16 * 2**20)
    assert backy("-b", root / "vm", "upgrade").code == 28

    done = backy("-b", root / "vm", "upgrade", "--reclaim")

    assert done.code == 0, done.err
    assert sums_of(root / "vm") == [sha256(image).hexdigest() for image in images]


def test_what_is_in_doubt_stays_until_the_end(tmp_path, backy):
    """Of a damaged revision somebody may get more, and chunks of it are needed as long as it is there."""
    old = Old(tmp_path / "vm")
    images = [ONE, TWO, BASE[3] + ONE[CHUNK : 3 * CHUNK], BASE[3]]
    for number, image in enumerate(images):
        old.add(f"revision-{number}", image, trust="distrusted" if number == 1 else "trusted")
    damage(old, "revision-2", 0, "cut short")
    alone = str(old.chunk("revision-0", 3).relative_to(old.directory))
    before = files_of(old.directory)

    done = backy("-b", old.directory, "upgrade", "--reclaim")

    assert done.code == 0, done.err
    assert [trust for _, _, trust in revisions_of(old.directory)] == ["trusted", "distrusted", "wrong", "wrong"]
    kept = old_revisions(old.directory / "backy-2").complete
    assert [one.id for one in kept] == ["revision-1", "revision-2", "revision-3"]
    assert {*before} - {*files_of(old.directory / "backy-2")} == {"revision-0", "revision-0.rev", alone}


@pytest.mark.parametrize("name", ["revision-9.rev", "revision-0"])
def test_nothing_is_removed_while_nobody_knows_what_is_needed(name, tmp_path, backy):
    old = Old(tmp_path / "vm")
    for number, image in enumerate([ONE, TWO]):
        old.add(f"revision-{number}", image)
    old.write(name, b'{"uuid: [')
    before = files_of(old.directory)

    done = backy("-b", old.directory, "upgrade", "--reclaim")

    assert done.code == 1
    assert name in done.err.splitlines()[-1]
    assert files_of(old.directory / "backy-2") == before
    assert "only 'backy-2' has them" in backy("-b", old.directory, "upgrade").err


@pytest.mark.parametrize("options", [["--finish", "--dry-run"], ["--finish", "--reclaim"], ["--rewrite", "x", "--all"]])
def test_options_that_do_not_go_together_change_nothing(options, real, backy):
    found = real("cowfile")
    backy("-b", found.directory, "upgrade")

    done = backy("-b", found.directory, "upgrade", *options)

    assert done.code == 2
    assert "give one of them" in done.err
    assert (found.directory / "backy-2").exists()
