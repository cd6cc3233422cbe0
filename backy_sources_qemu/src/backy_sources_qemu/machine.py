"""Freezes a disk of a running machine, by QEMU's block layer.

A filter is put between the device and its disk. Before the machine overwrites something for the first time, the filter
copies it to a scratch file; another node shows the disk as it was, and is exported by NBD. If a copy can not be made,
the export breaks, never the machine. So the instant needs no job, and nothing is lost when a backup is killed: the
earlier bitmap goes on, and the next backup takes the filter out.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from backy.api import SourceBusyError, SourceError
from backy_sources_qemu.bitmaps import BLOCK, MARK, Bitmap
from backy_sources_qemu.monitor import Command, MonitorError, locked, place
from backy_sources_qemu.scratch import Scratch

_OLDEST: Final = (7, 1)
"""The first QEMU whose filter lets the export break."""
_WORKERS: Final = {"copy-before-write", "mirror_top", "commit_top"}
"""Filters that QEMU's jobs put between a device and its disk."""
_SECONDS: Final = 45
"""How long the machine waits for a copy at most."""
_PAUSE: Final = 0.02
_PAUSES: Final = 3000


class Names(NamedTuple):
    """What is in QEMU during a backup. Each job has its own, so that several disks can be frozen at once."""

    filter: str
    scratch: str
    access: str
    export: str
    copy: str

    @classmethod
    def of(cls, key: str) -> Names:
        """Return the names that end with a key, which is short, as those of nodes have 31 characters at most."""
        return cls(*(f"backy-{part}-{key}" for part in ("filter", "scratch", "access", "export", "changes")))


class Machine:
    """A running QEMU, for the job that has these names. Its commands raise MonitorError.

    `path` is where its NBD server listens, which all backups of the machine share: QEMU has one.
    """

    def __init__(self, what: str, command: Command, names: Names, path: Path) -> None:
        self._what = what
        self.names = names
        self.path = path
        self.command = command
        version = self.command("query-version")["qemu"]
        if (version["major"], version["minor"]) < _OLDEST:
            raise SourceError(f"{what}: QEMU {version['major']}.{version['minor']} can not freeze it; 7.1 can")

    def disk(self, node: str | None, alias: str | None) -> Disk:
        """Return a disk by the name of its block node, or of its device; raise SourceError if there is none."""
        devices = {
            block["qdev"]: block["inserted"]["node-name"]
            for block in self.command("query-block")
            if block.get("qdev") and block.get("inserted")
        }
        nodes = self.nodes()
        for qdev, root in devices.items():
            is_worked_on = nodes[root]["drv"] in _WORKERS
            if (self._below(root) if is_worked_on else root) == node or (alias and alias in qdev.split("/")):
                if is_worked_on and self._is_left(root):
                    Machine(self._what, self.command, Names.of(root.rpartition("-")[2]), self.path).clean_up()
                    return self.disk(node, alias)
                if is_worked_on:
                    raise SourceBusyError(f"{self._what}: another program backs up, copies or merges the disk")
                return Disk(self, root, _path(qdev))
        there = ", ".join(sorted(devices.values())) or "no disks"
        raise SourceError(f"{self._what}: no device of the machine has this disk; block nodes of devices: {there}")

    def _is_left(self, filter_name: str) -> bool:
        """Tell whether a filter is of a backup that was killed, of another repository, which may never come back."""
        lock = place(self._what, filter_name)
        if not lock.with_suffix(".lock").exists():
            return False  # nobody has ever held it
        try:
            with locked(self._what, lock, wait=False):
                return True
        except SourceBusyError:
            return False

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return what QEMU tells of its block nodes, by name."""
        return {node["node-name"]: node for node in self.command("query-named-block-nodes", flat=True)}

    def clean_up(self) -> None:
        """Remove what a backup has made, as far as it got, except for the bitmaps that are kept."""
        nodes = self.nodes()
        self._end_export(is_ours=not nodes.keys().isdisjoint(self.names))
        if self.names.access in nodes:
            self.command("blockdev-del", node_name=self.names.access)
        if self.names.filter in nodes:
            self._take_out()
        if self.names.scratch in nodes:
            self.command("blockdev-del", node_name=self.names.scratch)
        for name, node in nodes.items():
            if any(bitmap.get("name") == self.names.copy for bitmap in node.get("dirty-bitmaps", [])):
                self.command("block-dirty-bitmap-remove", node=name, name=self.names.copy)
        for files in self.command("query-fdsets"):
            if any(file.get("opaque") == self.names.scratch for file in files["fds"]):
                # QEMU lists it until it has closed the file
                with suppress(MonitorError):
                    self.command("remove-fd", fdset_id=files["fdset-id"])

    def _end_export(self, *, is_ours: bool) -> None:
        """Remove the export, and stop the server if there is no other one."""
        exports = {export["id"] for export in self.command("query-block-exports")}
        if self.names.export in exports:
            is_ours = True
            self.command("block-export-del", id=self.names.export, mode="hard")
            exports = self._exports_without_ours()
        if is_ours and not exports:
            # it may not have been started yet
            with suppress(MonitorError):
                self.command("nbd-server-stop")
            self.path.unlink(missing_ok=True)

    def _exports_without_ours(self) -> set[str]:
        """Wait until the export is gone; return those of others."""
        for _ in range(_PAUSES):
            exports = {export["id"] for export in self.command("query-block-exports")}
            if self.names.export not in exports:
                return exports
            time.sleep(_PAUSE)
        raise SourceError(f"{self._what}: QEMU does not end the export '{self.names.export}'")

    def _take_out(self) -> None:
        """Give devices what is below the filter now: no longer the disk, if somebody has made a snapshot."""
        below = self._below(self.names.filter)
        for block in self.command("query-block"):
            if block.get("qdev") and block.get("inserted", {}).get("node-name") == self.names.filter:
                self.command("qom-set", path=_path(block["qdev"]), property="drive", value=below)
        self.command("blockdev-del", node_name=self.names.filter)

    def _below(self, node: str) -> str | None:
        """Return the name of the node below a filter; None if there is none."""
        graph = self.command("x-debug-query-block-graph")
        names: dict[int, str] = {found["id"]: found["name"] for found in graph["nodes"]}
        below = [
            names[edge["child"]]
            for edge in graph["edges"]
            if names[edge["parent"]] == node and edge["name"] in {"file", "backing"}
        ]
        return below[0] if below else None


def _path(qdev: str) -> str:
    """Return the QOM path of a device: those with an id are named by that alone."""
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"


class Disk:
    """A disk of a running machine: the node `node`, which the device with the QOM path `path` uses."""

    def __init__(self, machine: Machine, node: str, path: str) -> None:
        self._machine = machine
        self._command = machine.command
        self.names = machine.names
        self._node = node
        self._path = path

    @property
    def size(self) -> int:
        """Its bytes."""
        return int(self._machine.nodes()[self._node]["image"]["virtual-size"])

    def bitmaps(self) -> list[Bitmap]:
        """Return its bitmaps."""
        return [
            Bitmap(bitmap["name"], _fault(bitmap), bitmap["recording"], bitmap["count"] == 0)
            for bitmap in self._machine.nodes()[self._node].get("dirty-bitmaps", [])
            if bitmap.get("name")
        ]

    def remove_bitmaps(self, names: Iterable[str]) -> None:
        """Remove bitmaps."""
        for name in names:
            self._command("block-dirty-bitmap-remove", node=self._node, name=name)

    def freeze(self, scratch: Scratch, bitmap: str, base: str | None) -> None:
        """Freeze the disk as it is now.

        `bitmap` begins before this instant, and what `base` has is copied after it: either may have too much, and
        nothing is missing.
        """
        self._add_scratch(scratch)
        # only these can keep a bitmap when the machine is shut down
        image = self._machine.nodes()[self._node]
        compat = image["image"].get("format-specific", {}).get("data", {}).get("compat")
        is_kept = image["drv"] == "qcow2" and compat != "0.10"
        self._command("block-dirty-bitmap-add", node=self._node, name=bitmap, persistent=is_kept)
        mark = {"node": self._node, "name": bitmap + MARK, "persistent": is_kept, "disabled": True}
        self._command("block-dirty-bitmap-add", **mark, granularity=BLOCK)
        marked = {"node": self.names.scratch, "name": MARK}
        self._command("block-dirty-bitmap-merge", node=self._node, target=bitmap + MARK, bitmaps=[marked])
        self._command(
            "blockdev-add",
            driver="copy-before-write",
            node_name=self.names.filter,
            file=self._node,
            target=self.names.scratch,
            on_cbw_error="break-snapshot",
            cbw_timeout=_SECONDS,
        )
        self._command("qom-set", path=self._path, property="drive", value=self.names.filter)
        if base is not None:
            self._command("block-dirty-bitmap-add", node=self._node, name=self.names.copy, disabled=True)
            self._command("block-dirty-bitmap-merge", node=self._node, target=self.names.copy, bitmaps=[base])
        self._command("blockdev-add", driver="snapshot-access", node_name=self.names.access, file=self.names.filter)

    def export(self, *, changes: bool) -> str:
        """Export the frozen disk by NBD, with the copied bitmap if there are `changes`; return the URI."""
        if not self._is_served():
            self._serve()
        bitmaps = [{"node": self._node, "name": self.names.copy}] if changes else []
        name = self.names.export
        self._command("block-export-add", type="nbd", id=name, node_name=self.names.access, name=name, bitmaps=bitmaps)
        return f"nbd+unix:///{name}?socket={quote(str(self._machine.path))}"

    def _is_served(self) -> bool:
        """Tell whether another backup of the machine has started the server, or one that was killed."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._machine.path)) == 0

    def _serve(self) -> None:
        self._machine.path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            # QEMU gets the socket, and need not be allowed to open its path
            listening.bind(str(self._machine.path))
            self._command("getfd", descriptor=listening.fileno(), fdname=self.names.export)
            try:
                self._command("nbd-server-start", addr={"type": "fd", "data": {"str": self.names.export}})
            except MonitorError as error:
                self._command("closefd", fdname=self.names.export)
                raise SourceBusyError(f"{error}; another program uses QEMU's only NBD server") from error

    def _add_scratch(self, scratch: Scratch) -> None:
        files = self._command("add-fd", descriptor=scratch.descriptor, opaque=self.names.scratch)
        file = {"driver": "file", "filename": f"/dev/fdset/{files['fdset-id']}", "locking": "off"}
        bounded = {"driver": "raw", "size": scratch.limit, "file": file}
        self._command("blockdev-add", driver="qcow2", node_name=self.names.scratch, file=bounded)


def _fault(bitmap: dict[str, Any]) -> str | None:
    if bitmap.get("inconsistent"):
        return "could not be saved, as after a crash of QEMU"
    if bitmap.get("busy"):
        return "is used by another program"
    return None
