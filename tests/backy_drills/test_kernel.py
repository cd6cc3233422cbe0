"""How a boot loader would boot a guest, by its configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy_drills.kernel import Entry, command_line, entry_of
from tests.backy_drills.guests import GRUB, ROOT

BLS = """\
title Fedora Linux (6.5.6-300.fc39.x86_64) 39
version 6.5.6-300.fc39.x86_64
{first}
{second}
options root=UUID={root} ro rootflags=subvol=root $kernelopts quiet
grub_class fedora
"""


def test_the_first_entry_of_grub_is_booted() -> None:
    found = entry_of(GRUB.format(version="6.1", root=ROOT))
    assert found == Entry("/boot/vmlinuz-6.1", ["/boot/initrd.img-6.1"], [f"root=UUID={ROOT}", "ro", "quiet"])


def test_an_entry_has_no_initramfs_of_the_next_one() -> None:
    found = entry_of("menuentry 'a' {\n linux /a\n}\nmenuentry 'b' {\n linux /b\n initrd /ib\n}\n")
    assert found == Entry("/a", [], [])


@pytest.mark.parametrize(
    "lines",
    [("linux /vmlinuz-6.5", "initrd /ucode.img /initramfs"), ("initrd /ucode.img /initramfs", "linux /vmlinuz-6.5")],
)
def test_an_entry_of_the_specification_is_understood_in_any_order(lines: tuple[str, str]) -> None:
    found = entry_of(BLS.format(first=lines[0], second=lines[1], root=ROOT))
    words = [f"root=UUID={ROOT}", "ro", "rootflags=subvol=root", "$kernelopts", "quiet"]
    assert found == Entry("/vmlinuz-6.5", ["/ucode.img", "/initramfs"], words)


@given(st.text())
def test_what_is_no_configuration_is_none(text: str) -> None:
    found = entry_of(text.replace("linux", ""))
    assert found is None


def test_a_command_line_shows_all_and_says_nothing_that_only_the_boot_loader_knows() -> None:
    words = ["root=/dev/vda1", "ro", "quiet", "splash", "console=tty0", "console=ttyS1,9600", "$kernelopts", "panic=0"]
    assert command_line(words, "UUID=other / ext4 defaults 0 1\n") == "root=/dev/vda1 ro"


def test_without_a_root_it_is_that_of_fstab() -> None:
    fstab = "# / was on /dev/sda1\nproc /proc proc\nUUID=1234  /  xfs defaults 0 0\n"
    assert command_line(["rw"], fstab) == "rw root=UUID=1234 ro"
