"""Machines of a real libvirtd, whose QEMU may not open what backy has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import DescribedSnapshot, Job, SourceError
from backy.config import typed
from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.disks import QemuSource
from backy_sources_qemu.monitor import parse
from tests.backups import Backups
from tests.virtual import Libvirt, content_of

MIB = 2**20


def source(libvirt: Libvirt, domain: str, disk: str = "vda") -> QemuSource:
    section = {"type": "qemu", "domain": domain, "disk": disk, "uri": libvirt.uri}
    return QemuSource(typed(section, QemuConfig, "source"), Job("web7", "job-of-web7", Path("/nowhere")))


def test_a_machine_goes_off_and_on(libvirt: Libvirt, folder: Path, image_of: Callable[..., Path]) -> None:
    path, overlay = image_of(folder, "qcow2"), folder / "overlay.qcow2"
    folder.chmod(0o777)
    libvirt.define("web7", "qcow2", path)

    def content() -> bytes:
        return content_of(overlay if overlay.exists() else path, "qcow2", folder / "content")

    backups = Backups(source(libvirt, "web7"), content)
    backups.run()
    libvirt.virsh("start", "--paused", "web7")
    libvirt.write("web7", MIB, os.urandom(512))
    assert backups.run(lambda: libvirt.write("web7", 0, os.urandom(512))) == 65536
    with pytest.raises(ZeroDivisionError):
        backups.run(lambda: 1 // 0)
    assert libvirt.nodes("web7") == {"libvirt-1-format", "libvirt-1-storage"}
    libvirt.write("web7", MIB, os.urandom(512))
    # libvirt puts a bitmap of the same name into the new image, which has nothing of what was written before
    libvirt.virsh("snapshot-create-as", "web7", "--disk-only", "--diskspec", f"vda,file={overlay}")
    libvirt.write("web7", 2 * MIB, os.urandom(512))
    assert backups.run() is None
    libvirt.write("web7", MIB, os.urandom(512))
    libvirt.virsh("destroy", "web7")
    assert backups.run() == 65536
    source(libvirt, "web7").retain([])
    assert b"backy." not in subprocess.run(["qemu-img", "info", overlay], check=True, capture_output=True).stdout


def test_the_description_of_a_machine_comes_with_its_disk(
    libvirt: Libvirt, folder: Path, image_of: Callable[..., Path]
) -> None:
    libvirt.define("web5", "qcow2", image_of(folder, "qcow2"))
    folder.chmod(0o777)
    with source(libvirt, "web5").snapshot("revision1", None) as shut_off:
        assert isinstance(shut_off, DescribedSnapshot)
        description = shut_off.attachments()["libvirt.xml"]
    libvirt.virsh("start", "--paused", "web5")
    with source(libvirt, "web5").snapshot("revision2", "revision1") as running:
        # what libvirt knows of this run only makes no machine anywhere else
        assert isinstance(running, DescribedSnapshot)
        assert running.attachments() == {"libvirt.xml": description}
    libvirt.virsh("destroy", "web5")
    libvirt.virsh("undefine", "web5")
    (folder / "web5.xml").write_bytes(description)
    libvirt.virsh("define", str(folder / "web5.xml"))
    assert source(libvirt, "web5")._found()


def test_what_is_not_there_is_told_in_one_line(libvirt: Libvirt, folder: Path, image_of: Callable[..., Path]) -> None:
    libvirt.define("web9", "raw", image_of(folder, "raw"))
    for domain, disk, words in (
        ("nobody", "vda", "Domain not found: no domain with matching name 'nobody'"),
        ("web9", "vdb", "the machine has no disk vdb; it has: vda"),
    ):
        with pytest.raises(SourceError, match=words) as told, source(libvirt, domain, disk).snapshot("revision1", None):
            pass
        assert len(str(told.value).splitlines()) == 1
    with pytest.raises(SourceError, match="domain is not running"):
        libvirt.command("web9", "query-version")
    with (
        pytest.raises(SourceError, match=r"Failed to connect socket to '/nowhere/.*': No such file or directory"),
        source(Libvirt(Path("/nowhere")), "web9").snapshot("revision1", None),
    ):
        pass


SSH = """#!{python}
import os, socket, threading
libvirt = socket.socket(socket.AF_UNIX)
libvirt.connect({path!r})
def upwards():
    while data := os.read(0, 65536):
        libvirt.sendall(data)
    os._exit(0)
threading.Thread(target=upwards, daemon=True).start()
while data := libvirt.recv(65536):
    os.write(1, data)
"""
"""Stands for ssh: the libvirt of another host can not be had."""


def test_a_machine_of_another_host_is_refused(libvirt: Libvirt, folder: Path, image_of: Callable[..., Path]) -> None:
    # this host has a file of the same path as well
    libvirt.define("web6", "qcow2", image_of(folder, "qcow2"))
    path = libvirt.uri.partition("socket=")[2]
    ssh = folder / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, path=path))
    ssh.chmod(0o755)
    far = Libvirt(folder)
    far.uri = f"qemu+ssh://host7/session?command={ssh}&socket={path}&proxy=netcat"
    with (
        pytest.raises(SourceError, match="libvirt is that of host7: run backy there"),
        source(far, "web6").snapshot("revision1", None),
    ):
        pass


def test_the_disks_of_a_machine_are_found_in_its_xml() -> None:
    text = """<domain id='3'><uuid>u</uuid><devices>
        <disk type='file' device='cdrom'><target dev='sda'/></disk>
        <disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/web7'/><target dev='vda'/>
          <alias name='virtio-disk0'/></disk>
        <disk type='network' device='disk'><driver type='luks'/><source name='vms/web7'/><target dev='vdb'/></disk>
        </devices></domain>"""
    assert parse("web7", text, "vda") == ("u", True, "virtio-disk0", Path("/dev/vg/web7"), "raw", b"")
    assert parse("web7", text.replace("id='3'", ""), "vdb") == ("u", False, None, None, None, b"")
    with pytest.raises(SourceError, match="no disk sda; it has: vda, vdb"):
        parse("web7", text, "sda")
