"""Sends commands to QEMU by its machine protocol, QMP, as described in its reference manual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from backy.api import SourceError

# One name is enough: QEMU has one NBD server, so there is one backup at a time.
SCRATCH = "backy-scratch"
"""Name of the node, the job and the export of a running backup."""
TIMEOUT = 60.0
"""Seconds to wait for an answer of QEMU."""


class Machine:
    """A running QEMU and one of its disks."""

    def __init__(self, monitor: QEMUMonitorProtocol, node: str) -> None:
        self._monitor = monitor
        self._node = node

    @classmethod
    @contextmanager
    def connected(cls, socket: Path, node: str) -> Iterator[Machine]:
        """Connect to the QEMU that listens on `socket`.

        Raises:
            SourceError: QEMU does not answer, or refused a command.
        """
        monitor = QEMUMonitorProtocol(str(socket))
        try:
            monitor.settimeout(TIMEOUT)
            monitor.connect()
            yield cls(monitor, node)
        except (QMPError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"QEMU at {socket}: {text}") from error
        finally:
            with suppress(QMPError, OSError):
                monitor.close()

    def command(self, name: str, /, **arguments: object) -> Any:  # noqa: ANN401  # each command answers its own
        """Execute one command."""
        return self._monitor.cmd(name, **arguments)

    def disk(self) -> dict[str, Any]:
        """Return QEMU's description of the disk.

        Raises:
            SourceError: there is no such node.
        """
        nodes = {node["node-name"]: node for node in self.command("query-named-block-nodes", flat=True)}
        if self._node not in nodes:
            raise SourceError(f"QEMU has no block node '{self._node}'; there are: {', '.join(sorted(nodes))}")
        found: dict[str, Any] = nodes[self._node]
        return found

    def bitmaps(self, prefix: str) -> dict[str, bool]:
        """Return the disk's bitmaps whose names begin with `prefix`, and whether each one is reliable."""
        # QEMU marks a bitmap as inconsistent if it could not save it, for instance after a crash.
        known = {bitmap.get("name", ""): bitmap for bitmap in self.disk().get("dirty-bitmaps", [])}
        return {
            name: not bitmap.get("inconsistent", False) for name, bitmap in known.items() if name.startswith(prefix)
        }

    def remove_bitmaps(self, names: Iterable[str]) -> None:
        """Remove bitmaps of the disk."""
        for name in names:
            self.command("block-dirty-bitmap-remove", node=self._node, name=name)

    def begin(self, scratch: Path, bitmap: str, base: str | None) -> None:
        """At one instant, start copying overwritten blocks to `scratch`, and start `bitmap` in place of `base`."""
        # Only qcow2 can store a bitmap in the image.
        persistent = self.disk()["drv"] == "qcow2"
        files = {"driver": "file", "filename": str(scratch)}
        self.command("blockdev-add", **{"driver": "qcow2", "node-name": SCRATCH, "file": files, "backing": self._node})
        # With sync=none, the backup job copies nothing but blocks that the guest is about to overwrite.
        actions: list[dict[str, object]] = [
            _action("block-dirty-bitmap-add", node=self._node, name=bitmap, persistent=persistent),
            _action("blockdev-backup", **{"job-id": SCRATCH, "device": self._node, "target": SCRATCH, "sync": "none"}),
        ]
        if base is not None:
            actions.append(_action("block-dirty-bitmap-disable", node=self._node, name=base))
        self.command("transaction", actions=actions)

    def export(self, socket: Path, base: str | None) -> None:
        """Export the disk as it was at that instant over NBD, with the bitmap `base`."""
        self.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        bitmaps = [] if base is None else [{"node": self._node, "name": base}]
        self.command(
            "block-export-add", **{"type": "nbd", "id": SCRATCH, "node-name": SCRATCH, "name": "", "bitmaps": bitmaps}
        )

    def end(self) -> None:
        """Undo `begin` and `export`, as far as they got."""
        if any(export["id"] == SCRATCH for export in self.command("query-block-exports")):
            self.command("nbd-server-stop")
        if any(job["device"] == SCRATCH for job in self.command("query-block-jobs")):
            self.command("block-job-cancel", device=SCRATCH)
            while any(job["device"] == SCRATCH for job in self.command("query-block-jobs")):
                self._monitor.get_events(wait=TIMEOUT)
        if any(node["node-name"] == SCRATCH for node in self.command("query-named-block-nodes", flat=True)):
            self.command("blockdev-del", **{"node-name": SCRATCH})

    def keep_base(self, base: str, bitmap: str) -> None:
        """Add the changes in `bitmap` to `base`, as if there had been no backup."""
        # In one transaction, so that no write of the guest falls in between.
        target: dict[str, object] = {"node": self._node, "name": base}
        merge = _action("block-dirty-bitmap-merge", node=self._node, target=base, bitmaps=[bitmap])
        self.command("transaction", actions=[_action("block-dirty-bitmap-enable", **target), merge])


def _action(name: str, /, **data: object) -> dict[str, object]:
    return {"type": name, "data": data}
