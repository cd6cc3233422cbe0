"""Freezes a disk of a running machine, by QEMU's block layer.

A filter is put between the device and its disk. Before the machine overwrites something for the first time, the filter
copies it to a scratch file; another node shows the disk as it was, and is exported by NBD. If a copy can not be made,
the export breaks, never the machine. So the instant needs no job, and nothing is lost when a backup is killed: the
earlier bitmap goes on, and the next backup takes the filter out.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
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


class Names:
    """What is in QEMU during a backup. Each job has its own, so that several disks can be frozen at once."""

    def __init__(self, key: str) -> None:
        # the key is short, as names of nodes have 31 characters at most
        parts = (f"backy-{part}-{key}" for part in ("filter", "scratch", "access", "export", "changes"))
        self.filter, self.scratch, self.access, self.export, self.copy = parts


class Disk:
    """A disk of a running QEMU, by the name of its block node, or of its device. Commands raise MonitorError.

    What an earlier backup of the job has left is removed, for which `names` are. `path` is where the NBD server of QEMU
    listens, which all backups of the machine share: QEMU has one.

    Raises:
        SourceError: QEMU is too old, or there is no such disk.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # the machine, the job, and the disk
        self, what: str, command: Command, names: Names, path: Path, node: str | None, alias: str | None
    ) -> None:
        self._what = what
        self._command = command
        self._names = names
        self._path = path
        version = command("query-version")["qemu"]
        if (version["major"], version["minor"]) < _OLDEST:
            raise SourceError(f"{what}: QEMU {version['major']}.{version['minor']} can not freeze it; 7.1 can")
        self._clean_up(names)
        self._node, self._device = self._find(node, alias)

    def _find(self, node: str | None, alias: str | None) -> tuple[str, str]:
        """Return the node that a device uses, and the QOM path of the device."""
        used = [one for one in self._command("query-block") if one.get("qdev") and one.get("inserted")]
        devices = {one["qdev"]: one["inserted"]["node-name"] for one in used}
        nodes = self._nodes()
        for qdev, root in devices.items():
            is_worked_on = nodes[root]["drv"] in _WORKERS
            if (self._below(root) if is_worked_on else root) == node or (alias and alias in qdev.split("/")):
                if is_worked_on and self._is_left(root):
                    self._clean_up(Names(root.rpartition("-")[2]))
                    return self._find(node, alias)
                if is_worked_on:
                    raise SourceBusyError(f"{self._what}: another program backs up, copies or merges the disk")
                return root, _path(qdev)
        there = ", ".join(sorted(devices.values())) or "no disks"
        raise SourceError(f"{self._what}: no device of the machine has this disk; block nodes of devices: {there}")

    def _is_left(self, filter_name: str) -> bool:
        """Tell whether a filter is of a backup that was killed, of another repository, which may never come back."""
        lock = place(self._what, filter_name)
        if not lock.with_suffix(".lock").exists():
            return False  # nobody has ever held it
        with suppress(SourceBusyError), locked(self._what, lock, wait=False):
            return True
        return False

    def _nodes(self) -> dict[str, dict[str, Any]]:
        """Return what QEMU tells of its block nodes, by name."""
        return {node["node-name"]: node for node in self._command("query-named-block-nodes", flat=True)}

    def _clean_up(self, names: Names) -> None:
        """Remove what a backup has made, as far as it got, except for the bitmaps that are kept."""
        nodes = self._nodes()
        self._end_export(names.export, is_ours=not nodes.keys().isdisjoint(vars(names).values()))
        if names.access in nodes:
            self._command("blockdev-del", node_name=names.access)
        if names.filter in nodes:
            self._take_out(names.filter)
        if names.scratch in nodes:
            self._command("blockdev-del", node_name=names.scratch)
        for name, node in nodes.items():
            if any(bitmap.get("name") == names.copy for bitmap in node.get("dirty-bitmaps", [])):
                self._command("block-dirty-bitmap-remove", node=name, name=names.copy)
        for files in self._command("query-fdsets"):
            if any(file.get("opaque") == names.scratch for file in files["fds"]):
                # QEMU lists it until it has closed the file
                with suppress(MonitorError):
                    self._command("remove-fd", fdset_id=files["fdset-id"])

    def _end_export(self, name: str, *, is_ours: bool) -> None:
        """Remove an export, and stop the server if there is no other one."""
        exports = self._exports()
        if name in exports:
            is_ours = True
            self._command("block-export-del", id=name, mode="hard")
            for _ in range(_PAUSES):
                if name not in (exports := self._exports()):
                    break
                time.sleep(_PAUSE)
            else:
                raise SourceError(f"{self._what}: QEMU does not end the export '{name}'")
        if is_ours and not exports:
            # it may not have been started yet
            with suppress(MonitorError):
                self._command("nbd-server-stop")
            self._path.unlink(missing_ok=True)

    def _exports(self) -> set[str]:
        return {export["id"] for export in self._command("query-block-exports")}

    def _take_out(self, filter_name: str) -> None:
        """Give devices what is below a filter now: no longer the disk, if somebody has made a snapshot."""
        below = self._below(filter_name)
        for block in self._command("query-block"):
            if block.get("qdev") and block.get("inserted", {}).get("node-name") == filter_name:
                self._command("qom-set", path=_path(block["qdev"]), property="drive", value=below)
        self._command("blockdev-del", node_name=filter_name)

    def _below(self, node: str) -> str | None:
        """Return the name of the node below a filter; None if there is none."""
        graph = self._command("x-debug-query-block-graph")
        names: dict[int, str] = {found["id"]: found["name"] for found in graph["nodes"]}
        edges = [edge for edge in graph["edges"] if edge["name"] in {"file", "backing"}]
        below = [names[edge["child"]] for edge in edges if names[edge["parent"]] == node]
        return below[0] if below else None

    @property
    def size(self) -> int:
        """Its bytes."""
        return int(self._nodes()[self._node]["image"]["virtual-size"])

    def bitmaps(self) -> list[Bitmap]:
        """Return its bitmaps."""
        named = [one for one in self._nodes()[self._node].get("dirty-bitmaps", []) if one.get("name")]
        return [Bitmap(one["name"], _fault(one), one["recording"], one["count"] == 0) for one in named]

    def remove_bitmap(self, name: str) -> None:
        """Remove a bitmap."""
        self._command("block-dirty-bitmap-remove", node=self._node, name=name)

    def freeze(self, scratch: Scratch, bitmap: str, base: str | None) -> None:
        """Freeze the disk as it is now.

        `bitmap` begins before this instant, and what `base` has is copied after it: either may have too much, and
        nothing is missing.
        """
        self._add_scratch(scratch)
        # only these can keep a bitmap when the machine is shut down
        image = self._nodes()[self._node]
        compat = image["image"].get("format-specific", {}).get("data", {}).get("compat")
        is_kept = image["drv"] == "qcow2" and compat != "0.10"
        self._command("block-dirty-bitmap-add", node=self._node, name=bitmap, persistent=is_kept)
        mark = {"node": self._node, "name": bitmap + MARK, "persistent": is_kept, "disabled": True}
        self._command("block-dirty-bitmap-add", **mark, granularity=BLOCK)
        marked = {"node": self._names.scratch, "name": MARK}
        self._command("block-dirty-bitmap-merge", node=self._node, target=bitmap + MARK, bitmaps=[marked])
        nodes = {"node_name": self._names.filter, "file": self._node, "target": self._names.scratch}
        if_slow = {"on_cbw_error": "break-snapshot", "cbw_timeout": _SECONDS}
        self._command("blockdev-add", driver="copy-before-write", **nodes, **if_slow)
        self._command("qom-set", path=self._device, property="drive", value=self._names.filter)
        if base is not None:
            self._command("block-dirty-bitmap-add", node=self._node, name=self._names.copy, disabled=True)
            self._command("block-dirty-bitmap-merge", node=self._node, target=self._names.copy, bitmaps=[base])
        self._command("blockdev-add", driver="snapshot-access", node_name=self._names.access, file=self._names.filter)

    def export(self, *, changes: bool) -> str:
        """Export the frozen disk by NBD, with the copied bitmap if there are `changes`; return the URI."""
        if not self._is_served():
            self._serve()
        bitmaps = [{"node": self._node, "name": self._names.copy}] if changes else []
        name = self._names.export
        self._command("block-export-add", type="nbd", id=name, node_name=self._names.access, name=name, bitmaps=bitmaps)
        return f"nbd+unix:///{name}?socket={quote(str(self._path))}"

    def _is_served(self) -> bool:
        """Tell whether another backup of the machine has started the server, or one that was killed."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._path)) == 0

    def _serve(self) -> None:
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            # QEMU gets the socket, and need not be allowed to open its path
            listening.bind(str(self._path))
            self._command("getfd", descriptor=listening.fileno(), fdname=self._names.export)
            try:
                self._command("nbd-server-start", addr={"type": "fd", "data": {"str": self._names.export}})
            except MonitorError as error:
                self._command("closefd", fdname=self._names.export)
                raise SourceBusyError(f"{error}; another program uses QEMU's only NBD server") from error

    def _add_scratch(self, scratch: Scratch) -> None:
        files = self._command("add-fd", descriptor=scratch.descriptor, opaque=self._names.scratch)
        file = {"driver": "file", "filename": f"/dev/fdset/{files['fdset-id']}", "locking": "off"}
        bounded = {"driver": "raw", "size": scratch.limit, "file": file}
        self._command("blockdev-add", driver="qcow2", node_name=self._names.scratch, file=bounded)


def _path(qdev: str) -> str:
    """Return the QOM path of a device: those with an id are named by that alone."""
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"


def _fault(bitmap: dict[str, Any]) -> str | None:
    if bitmap.get("inconsistent"):
        return "could not be saved, as after a crash of QEMU"
    if bitmap.get("busy"):
        return "is used by another program"
    return None
