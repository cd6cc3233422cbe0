"""What lvs prints is read."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from backy.api import Job, SourceError
from backy_sources_lvm.config import LvmConfig
from backy_sources_lvm.snapshots import parse_held
from backy_sources_lvm.source import LvmSource
from backy_sources_lvm.volumes import (
    FIELDS,
    Volume,
    device_path,
    parse_volumes,
    reason,
    run,
    snapshot_name,
)

LVS = """
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"pool", "lv_uuid":"n1biGz", "lv_permissions":"writeable", "lv_active":"active", "lv_snapshot_invalid":"unknown", "lv_size":"1073741824", "lv_layout":"thin,pool", "lv_tags":"", "lv_dm_path":"/dev/mapper/vg-pool", "lv_device_open":"open", "pool_lv":"", "origin":"", "thin_id":"", "data_percent":"0.49", "metadata_percent":"11.13"},
                  {"lv_name":"thick", "lv_uuid":"4BBBr6", "lv_permissions":"writeable", "lv_active":"active", "lv_snapshot_invalid":"unknown", "lv_size":"1073741824", "lv_layout":"linear", "lv_tags":"", "lv_dm_path":"/dev/mapper/vg-thick", "lv_device_open":"", "pool_lv":"", "origin":"", "thin_id":"", "data_percent":"", "metadata_percent":""},
                  {"lv_name":"thick", "lv_uuid":"4BBBr6", "lv_permissions":"writeable", "lv_active":"active", "lv_snapshot_invalid":"unknown", "lv_size":"1073741824", "lv_layout":"linear", "lv_tags":"", "lv_dm_path":"/dev/mapper/vg-thick", "lv_device_open":"", "pool_lv":"", "origin":"", "thin_id":"", "data_percent":"", "metadata_percent":""},
                  {"lv_name":"thick.backy-revision1", "lv_uuid":"fabtVA", "lv_permissions":"read-only", "lv_active":"active", "lv_snapshot_invalid":"snapshot invalid", "lv_size":"104857600", "lv_layout":"linear", "lv_tags":"other,backy-job", "lv_dm_path":"/dev/mapper/vg-thick.backy--revision1", "lv_device_open":"", "pool_lv":"", "origin":"thick", "thin_id":"", "data_percent":"100.00", "metadata_percent":""},
                  {"lv_name":"web1.backy-revision2", "lv_uuid":"aSOFva", "lv_permissions":"read-only", "lv_active":"", "lv_snapshot_invalid":"unknown", "lv_size":"107374182400", "lv_layout":"thin,sparse", "lv_tags":"backy-job2", "lv_dm_path":"/dev/mapper/vg-web1.backy--revision2", "lv_device_open":"unknown", "pool_lv":"pool", "origin":"web1", "thin_id":"2", "data_percent":"0.01", "metadata_percent":""}
              ]
          }
      ]
  }
"""  # noqa: E501  # as lvs 2.03 prints it


def test_volumes_are_read() -> None:
    found = parse_volumes(LVS)
    assert list(found) == ["pool", "thick", "thick.backy-revision1", "web1.backy-revision2"]
    assert [name for name, one in found.items() if one.is_thin] == ["web1.backy-revision2"]
    assert [name for name, one in found.items() if one.is_pool] == ["pool"]
    assert [name for name, one in found.items() if one.lv_device_open == "open"] == ["pool"]
    assert [name for name, one in found.items() if one.lv_snapshot_invalid == "snapshot invalid"] == [
        "thick.backy-revision1"
    ]
    assert [name for name, one in found.items() if one.lv_active] == ["pool", "thick", "thick.backy-revision1"]
    assert [name for name, one in found.items() if one.is_read_only] == [
        "thick.backy-revision1",
        "web1.backy-revision2",
    ]
    assert found["thick"].lv_size == 2**30


def test_only_snapshots_with_name_and_tag_are_the_jobs_own() -> None:
    found = parse_volumes(LVS)
    assert {name: one.revision_of("job") for name, one in found.items() if one.revision_of("job")} == {
        "thick.backy-revision1": "revision1"
    }
    assert found["web1.backy-revision2"].revision_of("job2") == "revision2"
    renamed = parse_volumes(LVS.replace("thick.backy-revision1", "mine"))
    assert renamed["mine"].revision_of("job") is None


def test_snapshots_of_volumes_with_long_names_are_known_again() -> None:
    name = snapshot_name("v" * 127, "a" * 22)
    assert len(name) <= 127
    found = parse_volumes(LVS.replace("thick.backy-revision1", name))
    assert found[name].revision_of("job") == "a" * 22


@pytest.mark.parametrize("text", ["", "{}", '{"report": 1}', LVS.replace('"lv_size":"1073741824"', '"lv_size":"?"')])
def test_what_is_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # msgspec's texts
        parse_volumes(text)


def made(**fields: object) -> Volume:
    row = {**dict.fromkeys(FIELDS, ""), "lv_name": "pool", "lv_size": "0"}
    text = json.dumps({"report": [{"lv": [{**row, **{name: str(value) for name, value in fields.items()}}]}]})
    return parse_volumes(text)["pool"]


def test_a_pool_that_is_nearly_full_is_refused_with_figures() -> None:
    made(data_percent="89.99", metadata_percent="10.00").check_pool("source vg/web1", 90)
    made().check_pool("source vg/web1", 90)
    for data, metadata in (("90.00", "10.00"), ("10.00", "97.31")):
        with pytest.raises(SourceError, match=f"pool has used {data} % of its data and {metadata} % of its metadata"):
            made(data_percent=data, metadata_percent=metadata).check_pool("source vg/web1", 90)


def test_what_would_fill_a_pool_is_refused_with_figures() -> None:
    pool = made(lv_size=1000, data_percent="80.00", metadata_percent="10.00")
    pool.check_pool("target vg/new", 90, 99)
    assert pool.bytes_left(90) == 100
    with pytest.raises(SourceError, match=r"used 80.00 % of its data .*, and 100 bytes more might fill it; extend"):
        pool.check_pool("target vg/new", 90, 100)


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        (("web1.backy-revision2", "mine"), "is missing"),
        (('"read-only", "lv_active":""', '"writeable", "lv_active":""'), "can be written to, so it may differ from it"),
        (('"pool_lv":"pool"', '"pool_lv":"pool2"'), "is missing"),
        (('"origin":"web1"', '"origin":"web2"'), "is that of another volume"),
    ],
)
def test_only_the_snapshot_of_the_parent_as_it_was_made_is_compared_with(
    other: tuple[str, str], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = LvmSource(LvmConfig(type="lvm", group="vg", volume="web1"), Job("web1", "job2", Path()))
    found = source._earlier(parse_volumes(LVS), "pool", "revision2")
    assert found is not None
    assert found.lv_name == "web1.backy-revision2"
    assert source._earlier(parse_volumes(LVS.replace(*other)), "pool", "revision2") is None
    assert [line.getMessage() for line in caplog.records] == [
        f"source vg/web1 is read as a whole: the snapshot of revision revision2 {cause}"
    ]


def test_devices_have_the_path_that_lvm_tells() -> None:
    assert str(device_path("vg", "thick.backy-revision1")) == parse_volumes(LVS)["thick.backy-revision1"].lv_dm_path


def test_the_reserved_metadata_of_a_pool_is_read() -> None:
    begin = "0 2097152 thin-pool 3 115/1024 80/16384"
    assert parse_held(f"{begin} 45 rw discard_passdown queue_if_no_space - 256 \n") == 45
    assert parse_held(f"{begin} - rw discard_passdown queue_if_no_space - 256") is None
    for status in ("0 2097152 thin-pool Fail", "0 2097152 linear ", ""):
        with pytest.raises(SourceError, match="the pool can not be used: its status is"):
            parse_held(status)


def test_the_cause_of_a_failure_is_one_line() -> None:
    assert reason('  Volume group "x" not found\n  Cannot process volume group x\n') == "Cannot process volume group x"
    busy = "device-mapper: message ioctl on vg-pool-tpool  failed: Device or resource busy\nCommand failed.\n"
    assert reason(busy) == "device-mapper: message ioctl on vg-pool-tpool  failed: Device or resource busy"
    assert reason("no current metadata snap\nUsage: thin_delta [options] <device or file>\nOptions:\n") == (
        "no current metadata snap"
    )
    reserved = (
        '  Names including "_tdata" are reserved. Choose another.\n  Run `lvcreate --help\' for more information.\n'
    )
    assert reason(reserved) == 'Names including "_tdata" are reserved. Choose another.'
    with pytest.raises(SourceError, match=r"^source x: sh: exit code 3$"):
        run("source x", "sh", "-c", "exit 3")
    with pytest.raises(SourceError, match=r"^source x: sh: two$"):
        run("source x", "sh", "-c", "echo one; echo two >&2; exit 3")
    with pytest.raises(SourceError, match=r"^source x: the program no-such is missing; install the package lvm2$"):
        run("source x", "no-such")
    assert run("source x", "printenv", "LC_ALL") == "C\n"


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_that_takes_too_long_is_left_alone_and_told() -> None:
    with pytest.raises(SourceError, match=r"^source x: sleep does not end within 0 s, and still runs$"):
        run("source x", "sleep", "0.2", limit=0.01)


def test_a_program_ends_before_this_process_does(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(KeyboardInterrupt):
        run("source x", "sh", "-c", f"sleep 0.3; touch {tmp_path}/ended")
    assert (tmp_path / "ended").exists()
