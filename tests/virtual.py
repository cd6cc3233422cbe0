"""A real QEMU without a guest: what a guest would write is written through its device."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.monitor import by_libvirt, by_socket

NOBODY = 65534
FLAGS = ["-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "16", "-daemonize"]


NODES = {"disk", "second"}
"""The nodes of a machine that is not backed up just now."""


class Virtual:
    """A machine with a disk, the node `disk`, and an empty one, the node `second`."""

    def __init__(self, folder: Path, image_format: str, size: int) -> None:
        self.image = folder / f"image.{image_format}"
        self.format = image_format
        self.qmp = folder / "qmp"
        self._pid = folder / "pid"
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, self.image, str(size)], check=True)

    def start(self) -> None:
        disk = f"driver={self.format},node-name=disk,discard=unmap,file.driver=file,file.filename={self.image}"
        options = ["-blockdev", disk, "-device", "virtio-blk-pci,id=vda,drive=disk"]
        if self.format == "raw":
            # hosts with fast disks give them a thread of their own
            options = ["-object", "iothread,id=thread", *options[:3], f"{options[3]},iothread=thread"]
        # another disk, which reads as zeroes
        options += ["-blockdev", "driver=null-co,node-name=second,size=1048576,read-zeroes=on"]
        options += ["-device", "virtio-blk-pci,id=vdb,drive=second"]
        monitor = ["-qmp", f"unix:{self.qmp},server=on,wait=off", "-pidfile", self._pid]
        subprocess.run(["qemu-system-x86_64", *FLAGS, *options, *monitor], check=True)

    @property
    def is_running(self) -> bool:
        return self._pid.exists()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: by SIGTERM, as at a shutdown of the machine, or by SIGKILL as in a crash."""
        if not self.is_running:
            return
        pid = int(self._pid.read_text())
        # a daemon is no child, so it can not be waited for by wait()
        descriptor = os.pidfd_open(pid)
        os.kill(pid, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(30_000), "QEMU does not end"
        os.close(descriptor)
        self._pid.unlink(missing_ok=True)

    def command(self, name: str, /, **arguments: object):
        with by_socket("test", self.qmp) as execute:
            assert execute is not None
            return execute(name, **arguments)

    def io(self, *commands: str) -> None:
        """Have the device run commands of qemu-io(1). Whether one failed, only the content tells."""
        path = "/machine/peripheral/vda/virtio-backend"
        with by_socket("test", self.qmp) as execute:
            assert execute is not None
            for command in commands:
                execute("human-monitor-command", command_line=f'qemu-io -d {path} "{command}"')

    def write(self, offset: int, data: bytes) -> None:
        """Write some bytes as a guest would do."""
        source = self.qmp.with_name("data")
        for at in range(0, len(data), 2**20):
            source.write_bytes(data[at : at + 2**20])
            self.io(f"write -s {source} {offset + at} {len(data[at : at + 2**20])}")

    def reset(self, size: int, *pieces: tuple[int, bytes]) -> None:
        """Begin anew: only these pieces are on the disk, and there are no bitmaps."""
        if not self.is_running:
            self.start()
        for name in self.nodes()["disk"]:
            self.command("block-dirty-bitmap-remove", node="disk", name=name)
        self.resize(size)
        self.io(f"write -z -u 0 {size}")
        for offset, data in pieces:
            self.write(offset, data)

    @property
    def size(self) -> int:
        return self.command("query-block")[0]["inserted"]["image"]["virtual-size"]

    def resize(self, size: int) -> None:
        self.command("block_resize", node_name="disk", size=size)

    def content(self) -> bytes:
        """Return what the disk has now, past the locks of the machine."""
        if self.is_running:
            self.io("flush")
        return content_of(self.image, self.format, self.qmp.with_name("content"))

    def nodes(self) -> dict[str, set[str]]:
        """Return the names of all nodes that have one, with those of their bitmaps."""
        found = self.command("query-named-block-nodes", flat=True)
        return {
            node["node-name"]: {bitmap.get("name", "") for bitmap in node.get("dirty-bitmaps", [])}
            for node in found
            if not node["node-name"].startswith("#")
        }


class Server:
    """An NBD server, qemu-nbd or nbdkit, on a socket of its own. It is ready when it has gone to the background."""

    def __init__(self, folder: Path, *command: str | Path) -> None:
        self._pid = folder / f"{uuid.uuid4()}.pid"
        socket = self._pid.with_suffix(".socket")
        self.uri = f"nbd+unix:///?socket={socket}"
        places = {
            "qemu-nbd": ["--fork", "-t", "--pid-file", self._pid, "-k", socket],
            "nbdkit": ["-P", self._pid, "-U", socket],
        }
        subprocess.run([command[0], *places[str(command[0])], *command[1:]], check=True, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        if self._pid.exists():
            os.kill(int(self._pid.read_text()), signal.SIGKILL)
            self._pid.unlink()


DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='{format}' discard='unmap'/><source file='{image}'/>
      <target dev='vda' bus='virtio'/></disk>
  </devices>
</domain>
"""


class Libvirt:
    """A real libvirtd with folders of its own. It and its machines are nobody: they can not open backy's files."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"qemu+unix:///session?socket={folder}/run/libvirt/libvirt-sock"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Libvirt]:
        with tempfile.TemporaryDirectory(prefix="backy-") as name:
            folder = Path(name)
            configuration = folder / "XDG_CONFIG_HOME/libvirt"
            configuration.mkdir(parents=True)
            (configuration / "qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
            variables = {home: folder / home for home in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
            variables |= {"XDG_RUNTIME_DIR": folder / "run", "HOME": folder, "PATH": os.environ["PATH"]}
            folder.chmod(0o755)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            daemon = subprocess.Popen(["libvirtd"], user=NOBODY, group=NOBODY, extra_groups=[], env=variables, cwd="/")
            try:
                made = cls(folder)
                made.wait()
                yield made
                for machine in made.virsh("list", "--name").split():
                    made.virsh("destroy", machine)
            finally:
                daemon.terminate()
                daemon.wait()

    def wait(self) -> None:
        end = time.monotonic() + 60
        while subprocess.run(["virsh", "-c", self.uri, "list"], check=False, capture_output=True).returncode:
            assert time.monotonic() < end, "libvirtd does not answer"
            time.sleep(0.02)

    def virsh(self, *words: str | Path) -> str:
        return subprocess.run(
            ["virsh", "--quiet", "-c", self.uri, *words], check=True, capture_output=True, text=True
        ).stdout

    def define(self, name: str, image_format: str, image: Path) -> None:
        """Define a machine, which does not run yet, for an image that nobody may write to so far."""
        os.chown(image, NOBODY, NOBODY)
        definition = image.with_name("xml")
        definition.write_text(DOMAIN.format(name=name, format=image_format, image=image))
        self.virsh("define", definition)

    def command(self, domain: str, name: str, **arguments: object) -> Any:
        config = QemuConfig(type="qemu", domain=domain, disk="vda", uri=self.uri)
        with by_libvirt("test", config) as (_, execute):
            return execute(name, **arguments)

    def write(self, domain: str, offset: int, data: bytes) -> None:
        """Write the first of some bytes so often, as a guest would do."""
        path = "/machine/peripheral/virtio-disk0/virtio-backend"
        for words in (f"write -P {data[0]} {offset} {len(data)}", "flush"):
            line = f'qemu-io -d {path} "{words}"'
            self.command(domain, "human-monitor-command", command_line=line)

    def nodes(self, domain: str) -> set[str]:
        return {node["node-name"] for node in self.command(domain, "query-named-block-nodes", flat=True)}


def content_of(image: Path, image_format: str, target: Path) -> bytes:
    """Return what an image has now, past the locks of the machine."""
    if image_format == "raw":
        return image.read_bytes()
    force = f"driver={image_format},force-share=on,file.driver=file,file.filename={image}"
    subprocess.run(["qemu-img", "convert", "-U", "--image-opts", force, "-O", "raw", target], check=True)
    return target.read_bytes()
