"""What was deleted, and what is left without backy."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from tests.backy_storages_s3.conftest import Machine

MIB = 2**20
KEPT = "kept-versions"


@pytest.fixture
def versions(client, gateway):
    """A bucket that keeps versions, and lets nobody delete one of them within a day."""
    client.create_bucket(Bucket=KEPT, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    locked = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket=KEPT, ObjectLockConfiguration=locked)
    yield KEPT
    for page in client.get_paginator("list_object_versions").paginate(Bucket=KEPT):
        for one in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
            version = {"Bucket": KEPT, "Key": one["Key"], "VersionId": one["VersionId"]}
            client.delete_object(**version, BypassGovernanceRetention=True)
    client.delete_bucket(Bucket=KEPT)


def written(machine: Machine, number: int) -> bytes:
    content = random.Random(0).randbytes(5 * MIB) + random.Random(number).randbytes(5 * MIB)
    machine.image.write_bytes(content)
    return content


def test_what_was_deleted_and_overwritten_is_read_as_it_was(machine, versions, client):
    machine.section["bucket"] = versions
    first = written(machine, 1)
    # this gateway does not know conditions where versions are kept
    words = ["init", "--storage", machine.place, *machine.options(), "file", machine.image]
    assert "single-writer: true" in machine.run(*words, code=1).err
    machine.init(**{"single-writer": "true"})
    machine.run("backup", "daily")
    second = written(machine, 2)
    machine.run("backup", "daily")
    # times of versions are those of seconds
    time.sleep(1.1)
    at = datetime.now(UTC).isoformat()
    time.sleep(1.1)
    written(machine, 3)
    machine.run("backup", "daily")
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=versions)["Contents"]]
    for key in keys:
        client.put_object(Bucket=versions, Key=key, Body=b"overwritten")
        client.delete_object(Bucket=versions, Key=key)
    for one in client.list_object_versions(Bucket=versions)["Versions"]:
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=versions, Key=one["Key"], VersionId=one["VersionId"])

    machine.rebuild(at=at)
    assert len(list(machine.directory.glob("[!l]*.rev"))) == 2
    assert machine.restored() == second
    assert machine.restored("-r", "1") == first
    machine.run("verify")
    machine.run("scrub", "light")
    assert client.list_objects_v2(Bucket=versions).get("KeyCount") == 0
    with (machine.directory / "config").open("a") as config:
        config.write(f"source: {{type: file, filename: '{machine.image}'}}\n")
    assert "remove the key 'at'" in machine.run("backup", "daily", code=1).err
    assert "remove the key 'at'" in machine.run("purge", code=1).err


def test_what_somebody_deletes_beside_packs_is_noticed_by_a_scrub_and_put_back(machine, blobs):
    """The lease tells that nobody else writes, so that a backup lists nothing: only a scrub can notice it."""
    contents = [written(machine, 1)]
    machine.init()
    machine.run("backup", "daily")
    assert "deleted or changed" not in machine.run("scrub", "light").err
    contents.append(written(machine, 2))
    machine.run("backup", "daily")
    records = {name for name in blobs if name.endswith((".rev", ".map", ".state", ".packs"))}
    for name in records:
        del blobs[name]
    assert "8 objects of" in machine.run("scrub", "light").err
    contents.append(written(machine, 3))
    machine.run("backup", "daily")
    machine.run("purge")
    assert records <= set(blobs)
    assert "deleted or changed" not in machine.run("scrub", "light").err
    machine.rebuild()
    assert [machine.restored("-r", str(number)) for number in (2, 1, 0)] == contents


def test_without_backy_two_programs_restore(machine, blobs, tmp_path):
    first = written(machine, 1)
    machine.init()
    machine.run("backup", "daily")
    second = first[:5000] + b"changed" + first[5007:]
    machine.image.write_bytes(second)
    machine.run("backup", "daily")
    copy = tmp_path / "copy"
    for name, content in blobs.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)

    def python(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-I", "-S", copy / words[0], *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done
        return done.stderr

    assert "unpacked 3 packs" in python("unpack.py") or "unpacked 2 packs" in python("unpack.py")
    for spec, content in (("0", second), ("1", first)):
        python("restore.py", spec, str(tmp_path / spec))
        assert (tmp_path / spec).read_bytes() == content
    # a second time, it has nothing to do; what is damaged is told
    pack = max((copy / "packs").iterdir(), key=lambda path: path.stat().st_size)
    pack.write_bytes(pack.read_bytes()[:1000])
    assert "is damaged" in python("unpack.py")
    python("unpack.py", "--help", code=2)
    (copy / "store").write_text("another\n")
    assert "this program reads" in python("unpack.py", code=1)
