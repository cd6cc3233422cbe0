"""Calls LVM's programs, and has what they tell of volumes and of the space for their snapshots.

Every error is one line. Pools that are full harm the machines whose volumes lie in them.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Final

import msgspec

from backy.api import ID_PATTERN, SourceError

TIMEOUT: Final = 600
"""Seconds that a program of LVM may take."""
COMPARING: Final = 6 * 3600
"""Seconds that reading a pool's metadata may take: that of a pool of many TiB has gigabytes."""
_CONCLUSIONS: Final = ("Command failed.", "Run `")
"""How lines of errors begin that tell no cause."""
_FOLDERS: Final = "/usr/sbin:/sbin"
"""Where the programs lie, which the PATH of a service may leave out."""
_SNAPSHOT: Final = re.compile(rf".+\.backy-({ID_PATTERN.pattern})")


def run(what: str, *command: str, limit: float = TIMEOUT) -> str:
    """Run a program and return what it prints; raise SourceError, which begins with `what`, if it fails."""
    with tempfile.TemporaryFile() as output:
        run_into(output, what, *command, limit=limit)
        output.seek(0)
        return output.read().decode(errors="replace")


def run_into(output: IO[bytes], what: str, *command: str, limit: float = TIMEOUT) -> None:
    """Run a program that prints to a file; raise SourceError, which begins with `what`, if it fails.

    A program that takes longer than `limit` is left alone, and so is one that runs when this process is told to end:
    LVM holds writers of a volume back while it makes a snapshot, and would hold them back for ever.
    """
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', os.defpath)}:{_FOLDERS}"}
    # files, not pipes: a program must not die of a closed pipe if this process is killed
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603  # LVM's programs, and names that were checked
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment, start_new_session=True
            )
        except FileNotFoundError:
            package = "thin-provisioning-tools" if command[0] == "thin_delta" else "lvm2"
            raise SourceError(f"{what}: the program {command[0]} is missing; install the package {package}") from None
        code = _ended(process, what, command[0], limit)
        errors.seek(0)
        told = errors.read().decode(errors="replace")
    if code:
        raise SourceError(f"{what}: {command[0]}: {reason(told) or f'exit code {code}'}")


def _ended(process: subprocess.Popen[bytes], what: str, program: str, limit: float) -> int:
    """Wait for a program and return its exit code."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        raise SourceError(f"{what}: {program} does not end within {limit:.0f} s, and still runs") from None
    except BaseException:
        # this process shall end, but not before its program: what that has made is removed next
        process.wait(limit)
        raise


def reason(told: str) -> str:
    """Return the line of a program's errors that tells the cause: the last one that is no mere conclusion."""
    lines = [line.strip() for line in told.partition("Usage:")[0].splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(_CONCLUSIONS)), "")


class Volume(msgspec.Struct, frozen=True):
    """A logical volume, as `lvs` shows it."""

    lv_name: str
    lv_uuid: str
    lv_size: int
    lv_permissions: str
    lv_active: str
    """Empty if it has no device."""
    lv_snapshot_invalid: str
    """`snapshot invalid` if a snapshot of a volume that is not thin did not have the space for all changes."""
    lv_layout: str
    lv_tags: str
    lv_dm_path: str
    lv_device_open: str
    """`open` if something uses its device: a mount, a virtual machine, or another volume; `unknown` if it has none."""
    pool_lv: str
    origin: str
    thin_id: str
    data_percent: str
    metadata_percent: str

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
        return self.lv_permissions == "read-only"

    def revision_of(self, job_id: str) -> str | None:
        """Return the id of the revision that it is the snapshot for; None if it is no snapshot of the job's."""
        match = _SNAPSHOT.fullmatch(self.lv_name)
        return match[1] if match and tag(job_id) in self.lv_tags.split(",") else None

    def check_pool(self, what: str, limit: float, more: int = 0) -> None:
        """Raise SourceError if it is a thin pool that is nearly full, or would be with so many bytes `more`."""
        used = [("data", self.data_percent, 100 * more / max(self.lv_size, 1)), ("metadata", self.metadata_percent, 0)]
        # without an active volume in it, a pool tells no figures
        figures = " and ".join(f"{percent} % of its {name}" for name, percent, _ in used if percent)
        if any(percent and float(percent) + added >= limit for _, percent, added in used):
            too_much = f"{more} bytes more" if more else "a snapshot"
            advice = f"extend the pool by lvextend, or set 'pool-limit', now {limit:g} %"
            text = f"has used {figures}, and {too_much} might fill it; {advice}"
            raise SourceError(f"{what}: the pool {self.lv_name} {text}")

    def bytes_left(self, limit: float) -> int:
        """Return how much may be written to it before it is a pool that is nearly full."""
        return int(self.lv_size * (limit - float(self.data_percent or 0)) / 100)


FIELDS: Final = Volume.__struct_fields__
"""Columns of lvs(8) that are asked for."""


def tag(job_id: str) -> str:
    """Return the tag of the snapshots of a job."""
    return f"backy-{job_id}"


def snapshot_name(volume: str, revision_id: str) -> str:
    """Return the name of the snapshot of a volume for a revision, which begins as that of the volume does."""
    # LVM takes 127 characters for a name, and the kernel for that with the group and each dash doubled
    return f"{volume[:60]}.backy-{revision_id}"


def device_path(group: str, name: str) -> Path:
    """Return the path of the device of a volume, as `lv_dm_path` has it."""
    return Path("/dev/mapper", "-".join(word.replace("-", "--") for word in (group, name)))


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
    text = run(what, "lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", ",".join(FIELDS), group)
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
