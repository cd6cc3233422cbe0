"""What is said to QEMU: commands of its machine protocol, QMP, as its reference manual has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from backy.api import SourceError

SCRATCH = "backy-scratch"
"""Node and job of a running backup. There is one at a time: QEMU has one NBD server."""
TIMEOUT = 60.0
"""Seconds that QEMU may take for an answer."""


class Machine:
    """A running QEMU and one of its disks."""

    def __init__(self, monitor: QEMUMonitorProtocol, node: str) -> None:
        self._monitor = monitor
        self._node = node

    @classmethod
    @contextmanager
    def connected(cls, socket: Path, node: str) -> Iterator[Machine]:
        """Talk to the QEMU that listens on `socket`.

        Raises:
            SourceError: there is none, or it refused something.
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
        """Return what QEMU knows of the disk.

        Raises:
            SourceError: there is no such node.
        """
        nodes = {node["node-name"]: node for node in self.command("query-named-block-nodes", flat=True)}
        if self._node not in nodes:
            raise SourceError(f"QEMU has no block node '{self._node}'; there are: {', '.join(sorted(nodes))}")
        found: dict[str, Any] = nodes[self._node]
        return found

    def bitmaps(self, prefix: str) -> dict[str, bool]:
        """Return the disk's bitmaps whose names begin with `prefix`, and whether each can be relied on."""
        known = {bitmap.get("name", ""): bitmap for bitmap in self.disk().get("dirty-bitmaps", [])}
        return {
            name: not bitmap.get("inconsistent", False) for name, bitmap in known.items() if name.startswith(prefix)
        }

    def remove_bitmaps(self, names: Iterable[str]) -> None:
        """Let QEMU forget what changed since some revisions."""
        for name in names:
            self.command("block-dirty-bitmap-remove", node=self._node, name=name)

    def begin(self, scratch: Path, bitmap: str, base: str | None) -> None:
        """At one instant, begin to put aside what the guest overwrites, and note changes in `bitmap`, not in `base`."""
        persistent = self.disk()["drv"] == "qcow2"
        files = {"driver": "file", "filename": str(scratch)}
        self.command("blockdev-add", **{"driver": "qcow2", "node-name": SCRATCH, "file": files, "backing": self._node})
        actions: list[dict[str, object]] = [
            _action("block-dirty-bitmap-add", node=self._node, name=bitmap, persistent=persistent),
            _action("blockdev-backup", **{"job-id": SCRATCH, "device": self._node, "target": SCRATCH, "sync": "none"}),
        ]
        if base is not None:
            actions.append(_action("block-dirty-bitmap-disable", node=self._node, name=base))
        self.command("transaction", actions=actions)

    def export(self, socket: Path, base: str | None) -> None:
        """Offer the disk as it was at that instant over NBD."""
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
        """Let `base` know what was noted in `bitmap` since, as if there had been no backup."""
        target: dict[str, object] = {"node": self._node, "name": base}
        merge = _action("block-dirty-bitmap-merge", node=self._node, target=base, bitmaps=[bitmap])
        self.command("transaction", actions=[_action("block-dirty-bitmap-enable", **target), merge])


def _action(name: str, /, **data: object) -> dict[str, object]:
    return {"type": name, "data": data}
