"""All variants that backy 2 has ever written are upgraded, with what is damaged in them marked."""

import json
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from backy.reading import open_repository
from backy_upgrade.images import ChunkedImage, identify
from tests.backy_upgrade.conftest import files_of, images_of
from tests.backy_upgrade.writer import CHUNK, FIRST, Old, compressed

FLAT = "{filename: /srv/vm.img, type: file, backend: chunked}\n"
JSON = '{"source-type": "file", "source": {"filename": "/srv/vm.img", "cow": false}}'
BASE = [random.Random(seed).randbytes(CHUNK // 2) * 2 for seed in range(4)]
ONE = b"".join(BASE[:3]) + b"tail" * 1000
TWO = BASE[0] + bytes(CHUNK) + BASE[2] + b"end" * 2000
"""Another image: a chunk has become zeroes, and it has grown a little."""


def revisions_of(directory: Path) -> list[tuple]:
    return [(one.id, one.tags, one.trust) for one in open_repository(directory).revisions()]


def test_what_the_tests_write_is_what_backy_2_wrote(unpacked, tmp_path):
    """Maps, names of chunks and records are the same; LZO is what can be read."""
    real = unpacked / "chunked"
    written = Old(tmp_path / "vm", (real / "config").read_text())
    for path in real.glob("*.rev"):
        image = ChunkedImage(real / "chunks", real / path.stem)
        record = yaml.safe_load(path.read_text())
        written.add(path.stem, image.pread(0, image.size), **record)
        assert json.loads((written.directory / path.stem).read_text()) == json.loads((real / path.stem).read_text())
        assert yaml.safe_load((written.directory / path.name).read_text()) == record
        again = ChunkedImage(written.directory / "chunks", written.directory / path.stem)
        assert again.pread(0, again.size) == image.pread(0, image.size)
        assert image.damaged == again.damaged == set()
    names = {str(path.relative_to(real)) for path in real.glob("chunks/*/*")}
    assert {str(path.relative_to(written.directory)) for path in written.directory.glob("chunks/*/*")} == names
    assert (written.directory / "chunks/store").read_bytes() == (real / "chunks/store").read_bytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"asdf", "0881b420eb9c3610cc23d53a7f58cbda"),
        (b"abcdefgh" * 4, "87093cc403c9ac23c86b932d41b365db"),
        (bytes(range(256)), "b9126fdc13c3991c1ecc34ab7f07d670"),
        (bytes(CHUNK), "c72b4ba82d1f51b71c8a18195ad33fc8"),
        (b" " * CHUNK, "c01b5d75bfe6a1fa5bca6e492c5ab09a"),
    ],
)
def test_a_chunk_has_the_id_that_is_documented(data, expected):
    assert identify(data).hex() == expected


def test_a_chunk_is_compressed_as_is_documented(tmp_path):
    assert compressed(b"asdf").hex() == "f0000000041561736466110000"


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("config", [FLAT, JSON, "source: {type: file, filename: /srv/vm.img}\n"])
def test_stores_and_configurations_of_all_times(levels, config, tmp_path, backy):
    old = Old(tmp_path / "vm", config, levels=levels)
    old.add("KpXqR4vTn8sWzYb2Lm6HcD", ONE, tags=["daily", "weekly"])
    old.add("8f14e45f-ceea-4e7a-9d3b-0d6c5a1b2c3d", TWO)

    done = backy("-b", old.directory, "upgrade")

    assert done.code == 0, done.err
    assert list(images_of(open_repository(old.directory))) == [ONE, TWO]
    assert revisions_of(old.directory) == [
        ("KpXqR4vTn8sWzYb2Lm6HcD", ("daily", "weekly"), "trusted"),
        ("8f14e45f-ceea-4e7a-9d3b-0d6c5a1b2c3d", ("daily",), "trusted"),
    ]
    config = yaml.safe_load((old.directory / "config").read_text())
    assert config["source"] == {"type": "file", "filename": "/srv/vm.img"}


def test_records_of_all_times(tmp_path, backy):
    """Naive times are UTC, a number is one since the epoch, no backend is a raw image, no trust is trusted."""
    old = Old(tmp_path / "vm")
    first = datetime(2015, 8, 1, 20, 0, tzinfo=UTC)
    moments = [first.replace(tzinfo=None), 1438459201.5, datetime(2015, 8, 1, 22, 0, 2, tzinfo=UTC)]
    for number, moment in enumerate(moments):
        old.add(f"revision-{number}", ONE, chunked=False, timestamp=moment, backend_type=None, trust=None, type="full")
    old.add("revision-3", TWO, trust="verified", tags=["manual:before-move"], orig_tags=["daily"])
    old.add("revision-4", TWO, trust="distrusted", tags=[])
    old.add("revision-5", TWO, server="elsewhere")

    done = backy("-b", old.directory, "upgrade")

    assert (done.code, done.out) == (0, "vm: 5 revisions are upgraded\n"), done.err
    revisions = open_repository(old.directory).revisions()
    first = datetime(2015, 8, 1, 20, 0, tzinfo=UTC)
    assert [one.timestamp for one in revisions[:3]] == [first, first + timedelta(seconds=1.5), moments[2]]
    assert revisions[3].timestamp == FIRST + timedelta(days=3)
    assert [one.trust for one in revisions] == [*["trusted"] * 3, "verified", "distrusted"]
    assert [one.tags for one in revisions[3:]] == [("manual:before-move",), ()]


def test_tags_that_can_be_none_any_more_never_expire(tmp_path, backy):
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE[:CHUNK], tags=["2024", "last", "a,b", "spring clean", " "])

    assert backy("-b", old.directory, "upgrade").code == 0
    assert revisions_of(old.directory) == [
        ("revision-0", ("manual:2024", "manual:a-b", "manual:empty", "manual:last", "spring clean"), "trusted")
    ]


def test_backups_that_did_not_end_are_left_out_and_told(tmp_path, backy):
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE)
    old.add("revision-1", TWO, stats={"bytes_written": 0})
    old.write("revision-1", b'{"mapping": {"0": "12')

    done = backy("-b", old.directory, "upgrade")

    assert (done.code, done.out) == (
        0,
        "vm: 1 revision is upgraded; left out, as their backups did not end: revision-1\n",
    )
    assert not (old.directory / "revision-1").exists()
    assert (old.directory / "backy-2/revision-1").exists()


def damage(old: Old, revision_id: str, index: int, how: str) -> None:
    path = old.chunk(revision_id, index)
    path.chmod(0o640)
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "other content":
        path.write_bytes(compressed(b"x" * CHUNK))
    elif how == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other format":
        path.write_bytes(b"\0" + content[1:])


@pytest.mark.parametrize("how", ["missing", "other content", "cut short", "empty", "other format"])
def test_a_damaged_chunk_is_marked_in_all_revisions_that_have_it(how, tmp_path, backy):
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE)
    old.add("revision-1", TWO)
    old.add("revision-2", BASE[3] + ONE[CHUNK:])
    damage(old, "revision-0", 1, how)
    before = files_of(old.directory)

    done = backy("-b", old.directory, "upgrade")

    assert done.code == 0, done.err
    assert done.out.endswith("chunks of these can not be read, and are marked as wrong: revision-0, revision-2\n")
    states = json.loads(backy("-b", old.directory, "status", "--json").out)["revisions"]
    assert [(one["id"], one["trust"], (one["wrong"] or {}).get("chunks")) for one in states] == [
        ("revision-0", "wrong", [1]),
        ("revision-1", "trusted", None),
        ("revision-2", "wrong", [1]),
    ]
    hole = ONE[:CHUNK] + bytes(CHUNK) + ONE[2 * CHUNK :]
    assert list(images_of(open_repository(old.directory))) == [hole, TWO, BASE[3] + hole[CHUNK:]]
    assert files_of(old.directory / "backy-2") == before
    # nobody gets such an image by mistake, and reading the store does not lift it
    assert backy("-b", old.directory, "restore", "-r", "0", tmp_path / "restored").code == 1
    backy("-b", old.directory, "verify", "-r", "revision-0")
    assert revisions_of(old.directory)[0][2] == "wrong"


def test_a_chunk_that_the_map_does_not_have_is_damaged(tmp_path, backy):
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE)
    content = json.loads((old.directory / "revision-0").read_text())
    del content["mapping"]["2"]
    old.write("revision-0", json.dumps(content).encode())

    done = backy("-b", old.directory, "upgrade")

    assert "marked as wrong: revision-0" in done.out
    assert list(images_of(open_repository(old.directory))) == [ONE[: 2 * CHUNK] + bytes(CHUNK) + ONE[3 * CHUNK :]]


@pytest.mark.parametrize("content", [b"", b'{"mapping": {}}', b'{"mapping": {}, "size": -1}', b'{"ma', None])
def test_what_can_not_be_read_at_all_is_told_and_kept(content, tmp_path, backy):
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE)
    old.add("revision-1", TWO)
    old.write("revision-0", content or b"")
    if content is None:
        (old.directory / "revision-0").unlink()
    old.write("revision-9.rev", b"uuid: [\n")
    for number, more in enumerate([{"timestamp": 1e30}, {"uuid": "../revision-0"}, {"tags": 7}]):
        old.add(f"odd-revision-{number}", TWO, **more)
    old.write("odd-revision-3.rev", b"[" * 5000)
    before = files_of(old.directory)

    done = backy("-b", old.directory, "upgrade")

    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        "Error: vm: 1 revision is upgraded; these can not be read, only 'backy-2' has them: revision-0, "
        "odd-revision-0.rev, odd-revision-1.rev, odd-revision-2.rev, odd-revision-3.rev, revision-9.rev"
    )
    assert list(images_of(open_repository(old.directory))) == [TWO]
    assert files_of(old.directory / "backy-2") == before


def test_images_that_grow_and_shrink(tmp_path, backy):
    old = Old(tmp_path / "vm")
    images = [ONE, ONE[: CHUNK + 4096], ONE[: 2 * CHUNK], b"", TWO, TWO[:100]]
    for number, image in enumerate(images):
        old.add(f"revision-{number}", image)

    done = backy("-b", old.directory, "upgrade")

    assert done.code == 0, done.err
    assert list(images_of(open_repository(old.directory))) == images
    # what shrank years ago is no news
    assert {tags for _, tags, _ in revisions_of(old.directory)} == {("daily",)}


def test_a_last_chunk_that_backy_2_cut_in_its_map_only(tmp_path, backy):
    """Until 2.5.2 a chunk stayed as long as it was when the image shrank."""
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE[: 2 * CHUNK])
    content = json.loads((old.directory / "revision-0").read_text())
    old.add("revision-1", b"")
    old.write("revision-1", json.dumps({**content, "size": CHUNK + 5000}).encode())

    assert backy("-b", old.directory, "upgrade").code == 0
    assert list(images_of(open_repository(old.directory))) == [ONE[: 2 * CHUNK], ONE[: CHUNK + 5000]]


def test_what_backy_2_was_converting(tmp_path, backy):
    """Its own 'upgrade' was interrupted: a raw image lies aside, and a part of its chunks is there."""
    old = Old(tmp_path / "vm")
    old.add("revision-0", TWO)
    old.add("revision-1", ONE, chunked=False)
    (old.directory / "revision-1").rename(old.directory / "revision-1.old")
    old.write("revision-1", old.map(ONE[:CHUNK]))

    assert backy("-b", old.directory, "upgrade").code == 0
    assert list(images_of(open_repository(old.directory))) == [TWO, ONE]
    assert not (old.directory / "revision-1.old").exists()


def test_quarantine_and_logs_stay_with_the_old_files(tmp_path, backy):
    old = Old(tmp_path / "vm")
    old.add("revision-0", ONE)
    (old.directory / "quarantine/chunks").mkdir(parents=True)
    (old.directory / "quarantine/abc.report").write_text("uuid: abc\n")
    (old.directory / "backy.log").write_text("old\n")
    (old.directory / "notes.txt").write_text("mine\n")

    done = backy("-b", old.directory, "upgrade")

    assert done.code == 0
    assert done.out == "vm: 1 revision is upgraded; 'backy-2/quarantine' keeps its reports: 1\n"
    assert (old.directory / "backy-2/quarantine/abc.report").exists()
    assert (old.directory / "backy-2/backy.log").read_text() == "old\n"
    assert not (old.directory / "backy.log").exists()
    assert (old.directory / "notes.txt").read_text() == "mine\n"
    assert json.loads(backy("-b", old.directory, "status", "--json").out)["reports"] == 0


@pytest.mark.parametrize("storage", ["chunked", "cow"])
def test_raw_images_that_share_blocks(storage, mount, backy):
    old = Old(mount("btrfs") / "vm", FLAT)
    for number, image in enumerate([ONE, TWO, ONE]):
        old.add(f"revision-{number}", image, chunked=number == 2)
        if number < 2:
            (old.directory / f"revision-{number}").chmod(0o640)
            os.truncate(old.directory / f"revision-{number}", len(image) + 4096)

    done = backy("-b", old.directory, "upgrade", "--storage", storage)

    assert done.code == 0, done.err
    assert list(images_of(open_repository(old.directory))) == [ONE + bytes(4096), TWO + bytes(4096), ONE]
    assert (old.directory / "revision-0").exists() == (storage == "cow")
    assert backy("-b", old.directory, "scrub", "deep").code == 0


def test_a_storage_that_can_not_work_there_changes_nothing(mount, backy):
    old = Old(mount("ext4") / "vm")
    old.add("revision-0", ONE)
    before = files_of(old.directory)

    done = backy("-b", old.directory, "upgrade", "--storage", "cow")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "can not share blocks" in done.err
    assert files_of(old.directory).items() >= before.items()
    assert backy("-b", old.directory, "upgrade").code == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{type: ceph, pool: vms, image: web1, full-always: true}", {"type": "ceph-rbd", "full-always": True}),
        ("{type: rbd, pool: vms, image: web1, vm: web1}", {"type": "flyingcircus", "vm": "web1"}),
        ("{type: flyingcircus, pool: vms, image: web1, vm: w, consul_acl_token: t}", {"consul_acl_token": "t"}),
        ("{type: tape, reel: 7}", None),
        ("{type: [file]}", None),
    ],
)
def test_sources_of_all_times(source, expected, tmp_path, backy):
    """One that nobody has any more is left out: revisions can be restored without it."""
    old = Old(tmp_path / "vm", f"source: {source}\nschedule: {{daily: {{interval: '3600', keep: 0}}}}\n")
    old.add("revision-0", ONE[:CHUNK])

    done = backy("-b", old.directory, "upgrade")

    assert done.code == 0, done.err
    config = yaml.safe_load((old.directory / "config").read_text())
    if expected is None:
        assert "are left out: " in done.err
        assert "source" not in config
    else:
        assert config["source"].items() >= expected.items()
        assert config["schedule"] == {"daily": {"interval": "1h", "keep": 100000}}


@pytest.mark.parametrize("schedule", ["default", "{daily: }", "{daily: {interval: 1d}}"])
def test_a_schedule_that_somebody_wrote_by_hand_is_left_out(schedule, tmp_path, backy):
    old = Old(tmp_path / "vm", f"source: {{type: file, filename: /x}}\nschedule: {schedule}\n")
    old.add("revision-0", ONE[:CHUNK])

    done = backy("-b", old.directory, "upgrade")

    assert (done.code, done.out) == (0, "vm: 1 revision is upgraded\n")
    assert "config are left out: they have an unusual form" in done.err
