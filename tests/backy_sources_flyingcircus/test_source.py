from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable

import pytest

from backy.api import SourceError
from backy.backup.backup import Backup
from backy.repository.repository import Repository

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
FROZEN, RUNNING = b"frozen", b"running"
TOKEN = "secret-7f3a"


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    """Let all that any library logs be seen."""
    logging.getLogger("backy").propagate = True
    caplog.set_level(logging.DEBUG)


def backup(repository: Repository):
    return Backup(repository, ("daily",)).run()


def beginning(repository: Repository, revision) -> bytes:
    with repository.image(revision) as image:
        return image.pread(0, 512).strip()


def test_the_host_is_asked_for_the_snapshot(machine: Callable, consul, passing) -> None:
    disk, repository, host = machine()
    asked = []
    passing.watchers.insert(0, lambda _now: asked.extend(consul.keys.items()))
    revision = backup(repository)

    key, (value, _) = asked[0]
    assert re.fullmatch(f"snapshot/{UUID}", key)
    assert json.loads(value) == {"vm": "web1", "snapshot": f"backy-{revision.id}"}
    assert revision.consistency == "guest"
    assert beginning(repository, revision) == FROZEN
    assert disk.snapshots() == host.answered == [f"backy-{revision.id}"]
    assert consul.keys == {}
    assert passing.slept == [3]


def test_backups_follow_each_other(machine: Callable, consul) -> None:
    disk, repository, host = machine(delay=3)
    revisions = [backup(repository) for _ in range(3)]

    assert [revision.parent for revision in revisions] == [None, revisions[0].id, revisions[1].id]
    assert disk.snapshots() == [f"backy-{revisions[-1].id}"]
    assert len(host.answered) == 3
    assert consul.keys == {}


@pytest.mark.parametrize(("delay", "consistent"), [(None, False), (85, True), (95, False)])
def test_a_host_is_waited_for_for_90_seconds(
    machine: Callable, consul, passing, delay: float | None, consistent: bool
) -> None:
    disk, repository, _ = machine(delay=delay)
    revision = backup(repository)
    for _ in range(10):
        passing.sleep(10)  # a host that is late acts now

    assert (revision.consistency == "guest") is consistent
    assert beginning(repository, revision) == (FROZEN if consistent else RUNNING)
    assert disk.snapshots() == [f"backy-{revision.id}"]
    assert consul.keys == {}


def test_that_a_host_made_none_is_told_and_recorded(
    machine: Callable, backy: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    _, repository, _ = machine(delay=None)
    backup(repository)

    assert "web1: no consistent snapshot, so it is as after a power loss: its host made none within 90 s" in caplog.text
    assert '"unfrozen": true' in (repository.directory / "last.rev").read_text()
    assert "crash, not frozen" in backy("-b", repository.directory, "status", "--wide").out


def test_the_time_to_wait_can_be_set(machine: Callable, passing) -> None:
    _, repository, _ = machine(delay=None, **{"snapshot-timeout": "10s"})

    assert backup(repository).consistency == "crash"
    assert passing.slept == [3, 2, 2, 2, 1]


def hang_up(method: str, _path: str) -> tuple[int, str] | None:
    return (0, "") if method == "PUT" else None


TROUBLES = {
    "refuses the token": (lambda _method, _path: (403, f"Permission denied for {TOKEN}"), "Permission denied for ..."),
    "has an error": (lambda _method, _path: (500, "rpc error\nmaking call"), "500 rpc error making call"),
    "hangs up": (hang_up, "Consul can not be reached"),
    "says no": (lambda method, _path: (200, "false") if method == "PUT" else None, "Consul did not take the request"),
    "talks nonsense": (lambda _method, _path: (200, "<html>"), "Consul: "),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_consul_does_there_is_a_backup(
    machine: Callable, consul, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    disk, repository, _ = machine(consul_acl_token=TOKEN)
    consul.behave, expected = TROUBLES[trouble]
    revision = backup(repository)

    assert revision
    assert disk.snapshots() == [f"backy-{revision.id}"]
    assert revision.consistency == "crash"
    assert expected in caplog.text
    assert TOKEN not in caplog.text
    assert consul.keys == {}


@pytest.mark.parametrize("token", ["two\nlines", "日本"])
def test_what_can_be_no_token_is_not_shown_either(
    machine: Callable, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    _, repository, _ = machine(consul_acl_token=token)

    assert backup(repository).consistency == "crash"
    assert "no consistent snapshot" in caplog.text
    assert token not in caplog.text


def test_a_config_with_a_token_that_everybody_can_read_is_told(
    machine: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    _, repository, _ = machine(consul_acl_token=TOKEN)
    backup(repository)
    assert "can be read by everybody" not in caplog.text

    (repository.directory / "config").chmod(0o644)
    assert backup(repository).consistency == "guest"
    assert "vm/config has a token" in caplog.text.replace(repository.directory.name, "vm")


def test_a_wrong_token_is_told(machine: Callable, consul, caplog: pytest.LogCaptureFixture) -> None:
    consul.token = "another"
    _, repository, _ = machine(consul_acl_token=TOKEN)

    assert backup(repository).consistency == "crash"
    assert "ACLPermissionDenied rpc error making call: Permission denied" in caplog.text
    assert TOKEN not in caplog.text


def test_consul_is_down_from_the_start(machine: Callable, consul, caplog: pytest.LogCaptureFixture, passing) -> None:
    disk, repository, _ = machine()
    consul.stop()
    revision = backup(repository)

    assert revision.consistency == "crash"
    assert "web1: no consistent snapshot, so it is as after a power loss: Consul can not be reached" in caplog.text
    assert disk.snapshots() == [f"backy-{revision.id}"]
    assert passing.slept == []


@pytest.mark.parametrize("host", [True, False])
def test_consul_goes_down_while_a_snapshot_is_waited_for(
    machine: Callable, consul, passing, caplog: pytest.LogCaptureFixture, host: bool
) -> None:
    disk, repository, _ = machine(delay=0 if host else None)
    passing.watchers.append(lambda _now: passing.watchers.clear() or consul.stop())
    revision = backup(repository)

    assert (revision.consistency == "guest") is host
    assert disk.snapshots() == [f"backy-{revision.id}"]
    assert "requests may be left in Consul, until a later backup removes them: Consul can not be reached" in caplog.text


def test_a_slow_answer_is_given_up(
    machine: Callable, consul, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backy_sources_flyingcircus.snapshot_requests._TIMEOUTS", (0.2, 0.2))
    _, repository, _ = machine()
    answered = threading.Event()

    def slow(method: str, _path: str) -> None:
        if method == "PUT":
            answered.wait(30)

    consul.behave = slow
    revision = backup(repository)
    answered.set()

    assert revision.consistency == "crash"
    assert "power loss: Consul does not answer" in caplog.text


def test_requests_that_somebody_left_are_removed_and_all_others_are_not(machine: Callable, consul, passing) -> None:
    disk, repository, _ = machine()
    now = int(passing.now)
    ours = json.dumps({"vm": "web1", "snapshot": "backy-gone"}).encode()
    kept = {
        "snapshot/other-machine": (json.dumps({"vm": "web2", "snapshot": "backy-x"}).encode(), 0),
        "snapshot/other-program": (json.dumps({"vm": "web1", "snapshot": "nightly"}).encode(), 0),
        "snapshot/waited-for": (json.dumps({"vm": "web1", "snapshot": "backy-other-disk"}).encode(), now - 60),
        "snapshot/broken": (b'{"vm": "web1", "snapshot": "backy-', 0),
        "snapshot/no-text": (b"\xff\xfe", 0),
        "snapshot/list": (b'["web1", "backy-x"]', 0),
        "snapshot/number": (b'{"vm": "web1", "snapshot": 7}', 0),
        "snapshot/empty": (b"", 0),
        "elsewhere/snapshot/1": (ours, 0),
    }
    consul.keys = {**kept, "snapshot/of-backy-2": (ours, 0), "snapshot/of-a-crash": (ours, now - 3600)}
    del passing.watchers[:]
    backup(repository)

    assert consul.keys == kept
    assert len(disk.snapshots()) == 1


def test_two_backups_of_one_machine_do_not_disturb_each_other(machine: Callable, consul, passing) -> None:
    first, repository, host = machine(delay=20)
    second, other, _ = machine(delay=6)
    done = []

    def meanwhile(_now: float) -> None:
        passing.watchers.remove(meanwhile)
        done.append(backup(other))

    passing.watchers.remove(host)
    passing.watchers.insert(0, meanwhile)
    passing.watchers.append(host)
    revision = backup(repository)

    assert revision.consistency == "guest"
    assert done[0].consistency == "guest"
    assert (f"backy-{revision.id}" in first.snapshots(), f"backy-{done[0].id}" in second.snapshots()) == (True, True)
    assert consul.keys == {}


def test_a_backup_that_fails_leaves_no_request_and_no_snapshot(
    machine: Callable, consul, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, repository, _ = machine()

    def fail(*_: object) -> None:
        raise SourceError("it fails")

    monkeypatch.setattr("backy_sources_ceph.snapshot.RbdSnapshot.pread", fail)
    with pytest.raises(SourceError, match="it fails"):
        backup(repository)
    assert (consul.keys, disk.snapshots()) == ({}, [])


def test_an_interrupted_wait_leaves_no_request_and_no_snapshot(machine: Callable, consul, passing) -> None:
    disk, repository, _ = machine(delay=None)

    def interrupt(now: float) -> None:
        raise KeyboardInterrupt

    passing.watchers.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        backup(repository)
    assert (consul.keys, disk.snapshots()) == ({}, [])


@pytest.mark.parametrize("vm", ["a/b", "two words", "\"quoted\" and 'so'", "grün-ß-日本", "x" * 255, "50%", "?&=#"])
def test_machines_may_have_any_printable_name(machine: Callable, consul, vm: str) -> None:
    _, repository, host = machine(vm=vm)

    assert backup(repository).consistency == "guest"
    assert len(host.answered) == 1
    assert consul.keys == {}


@pytest.mark.parametrize("image", ["two words", "\"quoted\" and 'so'", "grün-ß-日本", "50%,x"])
def test_images_may_have_any_name_that_ceph_takes(machine: Callable, image: str) -> None:
    disk, repository, _ = machine(image=image)

    revision = backup(repository)
    assert revision.consistency == "guest"
    assert disk.snapshots() == [f"backy-{revision.id}"]
