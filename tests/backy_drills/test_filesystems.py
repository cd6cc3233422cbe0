"""What is found on disks and whether it is sound, by what libguestfs tells."""

from __future__ import annotations

import pytest

from backy_drills.filesystems import check, found
from backy_files.sandbox import GuestError


class Guest:
    """A machine of libguestfs with these kinds on its disks, where a check ends with a code."""

    def __init__(self, kinds: dict[str, str], code: str = "0", *, mounts: bool = True, answers: bool = True) -> None:
        self.kinds, self._code, self._mounts, self._answers = kinds, code, mounts, answers

    def run(self, *command: str) -> bytes:
        if not self._answers:
            raise GuestError("the virtual machine does not answer")
        if command[0] == "mount" and not self._mounts:
            raise GuestError("wrong fs type")
        return b""

    def shell(self, text: str) -> bytes:
        return b"/dev/sda1\n" if text.startswith("findmnt") else f"{self._code}\nKilled\n".encode()


GOOD = {"/dev/sda": "", "/dev/sda1": "ext4"}


@pytest.mark.parametrize(
    ("kinds", "dark"),
    [
        (GOOD, []),
        (GOOD | {"/dev/sda2": "swap"}, []),
        (GOOD | {"/dev/sda2": ""}, ["sda2 (unknown)"]),
        (GOOD | {"/dev/sdb": ""}, ["sdb (unknown)"]),
        (GOOD | {"/dev/sdb": "", "/dev/sdba1": "ext4"}, ["sdb (unknown)"]),
        (GOOD | {"/dev/md12": "", "/dev/md127": "xfs"}, ["md12 (unknown)"]),
        (GOOD | {"/dev/md12": "", "/dev/md12p1": "xfs"}, []),
        (GOOD | {"/dev/sdb": "zfs_member"}, ["sdb (zfs_member)"]),
        (GOOD | {"/dev/sdb": "crypto_LUKS"}, ["sdb (crypto_LUKS)"]),
        (GOOD | {"/dev/sdb": "LVM2_member", "/dev/mapper/x": "ext4"}, ["sdb (LVM2_member)"]),
        (GOOD | {"/dev/sdb": "LVM2_member", "/dev/vg/root": "ext4"}, []),
        (GOOD | {"/dev/sdb": "linux_raid_member"}, ["sdb (linux_raid_member)"]),
        (GOOD | {"/dev/sdb": "linux_raid_member", "/dev/md127": "xfs"}, []),
    ],
)
def test_all_that_is_not_looked_at_is_told(kinds: dict[str, str], dark: list[str]) -> None:
    remarks, shown = list[str](), list[bytes]()
    systems = found(Guest(kinds), remarks, shown.append)
    assert systems["/dev/sda1"] == "ext4"
    assert remarks == [f"{one} was not looked at" for one in dark]
    assert shown[0].startswith(b"found: sda (unknown), sda1 (ext4)")


def test_where_nothing_has_files_it_is_told_what_there_is() -> None:
    with pytest.raises(GuestError, match=r"^no file system was found; there is sda \(unknown\), sda1 \(swap\)$"):
        found(Guest({"/dev/sda": "", "/dev/sda1": "swap"}), [], len)


def fault(guest: Guest) -> str:
    with pytest.raises(GuestError) as error:
        check(guest, {"/dev/sda1": "ext4"}, [], lambda data: None)
    return str(error.value)


@pytest.mark.parametrize("code", ["8", "127", "137"])
def test_a_check_that_does_not_come_to_its_end_accuses_nothing(code: str) -> None:
    assert fault(Guest(GOOD, code)) == f"sda1 (ext4) was not checked, the check ended with {code}: Killed"


@pytest.mark.parametrize("code", ["1", "4"])
def test_what_a_check_finds_is_not_sound(code: str) -> None:
    assert fault(Guest(GOOD, code)) == "sda1 (ext4) is not sound: Killed"


def test_a_machine_that_does_not_answer_is_no_fault_of_a_file_system() -> None:
    assert fault(Guest(GOOD, mounts=False)) == "sda1 (ext4) can not be mounted: wrong fs type"
    assert fault(Guest(GOOD, answers=False)) == "the virtual machine does not answer"
