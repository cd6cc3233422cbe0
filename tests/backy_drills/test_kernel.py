"""How a boot loader would boot a guest, by its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy_drills import kernel
from backy_drills.kernel import command_line, entry_of, taken_out
from backy_files.sandbox import GuestError
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
    assert found == ("/boot/vmlinuz-6.1", ["/boot/initrd.img-6.1"], [f"root=UUID={ROOT}", "ro", "quiet"])


def test_an_entry_has_no_initramfs_of_the_next_one() -> None:
    found = entry_of("menuentry 'a' {\n linux /a\n}\nmenuentry 'b' {\n linux /b\n initrd /ib\n}\n")
    assert found == ("/a", [], [])


@pytest.mark.parametrize(
    "lines",
    [("linux /vmlinuz-6.5", "initrd /ucode.img /initramfs"), ("initrd /ucode.img /initramfs", "linux /vmlinuz-6.5")],
)
def test_an_entry_of_the_specification_is_understood_in_any_order(lines: tuple[str, str]) -> None:
    found = entry_of(BLS.format(first=lines[0], second=lines[1], root=ROOT))
    words = [f"root=UUID={ROOT}", "ro", "rootflags=subvol=root", "$kernelopts", "quiet"]
    assert found == ("/vmlinuz-6.5", ["/ucode.img", "/initramfs"], words)


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


def test_all_lines_of_an_entry_count() -> None:
    found = entry_of("linux /vmlinuz\ninitrd /ucode.img\ninitrd /initramfs\noptions root=/dev/vda1\noptions rw\n")
    assert found == ("/vmlinuz", ["/ucode.img", "/initramfs"], ["root=/dev/vda1", "rw"])


def test_a_command_line_has_what_a_program_can_be_given() -> None:
    assert command_line(["a\0b", "ro"], "UUID=1\0 / xfs\n") == "ro ro"
    assert len(command_line(["x" * 9] * 1000, "")) == 1800


class Guest:
    """What taken_out() asks a guest, of one whose files are these."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def lines(self, command: str, *words: str) -> list[str]:
        told = {"inspect-os": ["/dev/sda1"], "inspect-get-type": ["linux"], "inspect-get-mountpoints": ["/: /dev/sda1"]}
        if command == "glob-expand":
            return [words[0].replace("*", "")] if words[0].replace("*", "") in self.files else []
        return told[command] if command in told else [str(self._path(words) in self.files).lower()]

    def run(self, command: str, *words: str, sink: Callable[[bytes], object] | None = None) -> bytes:
        if command == "download" and sink:
            sink(self.files[self._path(words)][:4])
            sink(self.files[self._path(words)][4:])
        return self.files[words[0]] if command == "read-file" else b""

    def _path(self, words: tuple[str, ...]) -> str:
        return words[0].replace("//", "/")


GRUB_CFG = b"menuentry 'a' {\n linux /@/boot/vmlinuz root=/dev/sda1\n initrd /ucode /initrd\n}\n"
FILES = {
    "/boot/grub/grub.cfg": GRUB_CFG,
    "/boot/vmlinuz": b"a kernel",
    "/boot/ucode": b"more ",
    "/boot/initrd": b"init",
}


def test_kernel_and_initramfs_are_found_below_boot(tmp_path: Path) -> None:
    """They are written here, by who calls; nothing is given a path to write to."""
    assert taken_out(Guest(FILES), tmp_path) == ("root=/dev/sda1", True)
    assert [(tmp_path / name).read_bytes() for name in ("kernel", "initrd")] == [b"a kernel", b"more init"]


@pytest.mark.parametrize("missing", ["/boot/vmlinuz", "/boot/initrd"])
def test_what_the_boot_loader_needs_and_does_not_find_is_told(tmp_path: Path, missing: str) -> None:
    files = {name: content for name, content in FILES.items() if name != missing}
    with pytest.raises(GuestError, match=rf"{missing[5:]} is missing, which /boot/grub/grub\.cfg has to boot$"):
        taken_out(Guest(files), tmp_path)


def test_without_a_configuration_nothing_is_booted(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"^no configuration of a boot loader was found that could be understood$"):
        taken_out(Guest({"/boot/vmlinuz": b"a kernel"}), tmp_path)


@pytest.mark.parametrize(("most", "name"), [(7, "/@/boot/vmlinuz"), (8, "/initrd")])
def test_what_is_too_large_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, name: str) -> None:
    monkeypatch.setattr(kernel, "_LARGEST", most)
    with pytest.raises(GuestError, match=f"^{name} is too large to boot"):
        taken_out(Guest(FILES), tmp_path)
    assert all(path.stat().st_size <= most for path in tmp_path.iterdir())
