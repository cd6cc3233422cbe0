"""What LVM tells of its volumes."""

import re
from typing import Final

import msgspec

from backy.api import ID_PATTERN, SourceError
from backy_sources_lvm.programs import run

_SNAPSHOT: Final = re.compile(rf".+\.backy-({ID_PATTERN.pattern})")


class Volume(msgspec.Struct, frozen=True):
    """A logical volume, as `lvs` shows it."""

    lv_name: str
    lv_uuid: str
    lv_attr: str
    lv_size: int
    lv_layout: str
    lv_tags: str
    lv_dm_path: str
    lv_device_open: str
    pool_lv: str
    origin: str
    thin_id: str
    data_percent: str
    metadata_percent: str
    vg_free: int
    vg_extent_size: int

    @property
    def is_thin(self) -> bool:
        """Whether it lies in a thin pool."""
        return bool(self.pool_lv and self.thin_id)

    @property
    def is_pool(self) -> bool:
        """Whether it is a thin pool."""
        return {"thin", "pool"} <= set(self.lv_layout.split(","))

    @property
    def is_read_only(self) -> bool:
        """Whether nobody can write to it."""
        return self.lv_attr[1:2] == "r"

    @property
    def is_active(self) -> bool:
        """Whether it has a device."""
        return self.lv_attr[4:5] != "-"

    @property
    def is_overflown(self) -> bool:
        """Whether it is a snapshot of a volume that is not thin and did not have the space for all changes."""
        return self.lv_attr[4:5] in {"I", "S"}

    @property
    def is_open(self) -> bool:
        """Whether something uses its device: a mount, a virtual machine, or another volume."""
        return self.lv_device_open == "open"

    def revision_of(self, job_id: str) -> str | None:
        """Return the id of the revision that it is the snapshot for; None if it is no snapshot of the job's."""
        match = _SNAPSHOT.fullmatch(self.lv_name)
        return match[1] if match and tag(job_id) in self.lv_tags.split(",") else None


FIELDS: Final = Volume.__struct_fields__
"""Columns of lvs(8) that are asked for."""


def tag(job_id: str) -> str:
    """Return the tag of the snapshots of a job."""
    return f"backy-{job_id}"


def snapshot_name(volume: str, revision_id: str) -> str:
    """Return the name of the snapshot of a volume for a revision, which begins as that of the volume does."""
    # LVM takes 127 characters for a name, and the kernel for that with the group and each dash doubled
    return f"{volume[:60]}.backy-{revision_id}"


def device_path(group: str, name: str) -> str:
    """Return the path of the device of a volume, as `lv_dm_path` has it."""
    return "/dev/mapper/" + "-".join(word.replace("-", "--") for word in (group, name))


class _Report(msgspec.Struct):
    lv: list[Volume] = []


class _Reports(msgspec.Struct):
    report: list[_Report]


def parse_volumes(text: str) -> dict[str, Volume]:
    """Read the JSON that lvs prints; raise ValueError if it is none. A volume of several segments has several rows."""
    # numbers are in quotes
    found = msgspec.json.decode(text, type=_Reports, strict=False)
    return {volume.lv_name: volume for report in found.report for volume in report.lv}


def volumes(what: str, group: str) -> dict[str, Volume]:
    """Return the volumes of a group by name; raise SourceError, which begins with `what`, if there is no such group."""
    columns = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", ",".join(FIELDS))
    text = run(what, "lvs", *columns, group)
    try:
        return parse_volumes(text)
    except ValueError as error:
        raise SourceError(f"{what}: lvs prints what can not be understood: {error}") from error


def volume(what: str, group: str, name: str) -> tuple[Volume, dict[str, Volume]]:
    """Return a volume and all of its group by name; raise SourceError if there is none."""
    found = volumes(what, group)
    if name not in found:
        raise SourceError(f"{what}: there is no volume {name} in the volume group {group}")
    return found[name], found
