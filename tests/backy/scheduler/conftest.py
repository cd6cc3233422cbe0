"""A scheduler that really runs, in a process of its own, with real jobs."""

from __future__ import annotations

import os
import queue
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import pytest
import yaml

from backy.scheduler.monitoring.status import JobStatus, PoolStatus, Status, read
from backy.scheduler.process.base_directory import SOCKET, Reply, ask

BACKY = Path(sys.executable).with_name("backy")
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 60.0
"""Seconds after which something that ought to happen counts as never happening."""

SLOWNESS = """
    import time
    from backy.hookspecs import hookimpl

    @hookimpl
    def backy_backup_starting(job):
        while (job.directory.parent.parent / "hold").exists():
            time.sleep(0.02)
"""


def eventually(true: Callable[[], Any]) -> Any:
    """Return what `true` returns once that is something."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, "this ought to have happened by now"
        time.sleep(0.02)
    return found


@pytest.fixture(name="eventually")
def _eventually() -> Callable[[Callable[[], Any]], Any]:
    """Wait for something that another process does, as `eventually(lambda: it is so)`."""
    return eventually


class Manager:
    """What systemd is to the scheduler: a socket that is always read, as a full one loses what comes next."""

    def __init__(self) -> None:
        self.address = f"@backy-{os.getpid()}-{time.monotonic_ns()}"
        self.heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0"))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self.heard.put(message.decode())

    def close(self) -> None:
        self._socket.sendto(b"", self.address.replace("@", "\0"))
        self._thread.join()
        self._socket.close()


@dataclass
class Running:
    """A configuration and the scheduler that has it."""

    folder: Path
    content: dict[str, Any]
    manager: Manager
    process: subprocess.Popen[bytes] | None = None
    told: list[str] = field(default_factory=list)
    """What systemd would have been told."""

    @property
    def configuration(self) -> Path:
        return self.folder / "backy.conf"

    @property
    def base(self) -> Path:
        return self.folder / "srv"

    @property
    def log(self) -> Path:
        return self.folder / "scheduler.log"

    def job(self, name: str, **keys: Any) -> Path:
        """Configure a job for a small image, and return the image."""
        image = self.folder / f"{name}.img"
        if not image.exists():
            image.write_bytes(name.encode() * 1000)
        self.content["jobs"][name] = {
            "schedule": "default",
            "source": {"type": "file", "filename": str(image)},
            **keys,
        }
        return image

    def plugin(self, name: str, code: str, kind: str = "hooks") -> None:
        """Install a plugin for the scheduler and its children."""
        metadata = self.folder / f"site/{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[backy.{kind}]\n{name} = {name}\n")
        (self.folder / f"site/{name}.py").write_text(dedent(code))

    def hold(self) -> None:
        """Let backups that begin from now on take until `release`."""
        (self.folder / "hold").touch()
        if not (self.folder / "site/slowness.py").exists():
            self.plugin("slowness", SLOWNESS)

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def write(self) -> None:
        self.configuration.write_text(yaml.safe_dump(self.content, sort_keys=False))

    def start(self, *options: str, wait: bool = True, closed: str = "") -> None:
        """Start the scheduler; `closed` has redirections of a shell that close descriptors."""
        self.write()
        environment = {**os.environ, "NOTIFY_SOCKET": self.manager.address, "TZ": "UTC"}
        environment["PYTHONPATH"] = str(self.folder / "site")
        # a scheduler that starts looks at each plugin: those that are not needed here take more time than most tests
        ours = [metadata.name.partition("-")[0] for metadata in self.folder.glob("site/*.dist-info")]
        environment["BACKY_PLUGINS"] = ",".join(["backy-sources-file", *ours])
        command = [BACKY, *options, "-l", self.log, "scheduler", "-c", self.configuration]
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh"] if closed else []
        self.process = subprocess.Popen([*shell, *command], env=environment, stderr=subprocess.PIPE)
        if wait:
            self.wait_for("READY=1")

    def wait_for(self, message: str) -> None:
        """Wait until systemd is told something that it was not told before."""

        def is_told() -> bool:
            assert self.process
            assert self.process.poll() is None, self.log.read_text()
            while not self.manager.heard.empty():
                self.told.append(self.manager.heard.get())
                if self.told[-1].startswith(message):
                    return True
            return False

        eventually(is_told)

    def reload(self) -> None:
        """Write the configuration, and send SIGHUP."""
        self.write()
        assert self.process
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        self.wait_for("READY=1")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the scheduler by a signal and return its exit code."""
        assert self.process
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def ask(self, *words: str) -> Reply:
        return ask(self.base, words)

    def status(self) -> Status:
        return read(self.base / "status")

    def jobs(self) -> dict[str, JobStatus]:
        """Return the jobs as the scheduler knows them now."""
        return {job.job: job for job in msgspec.convert(self.ask("jobs").data["jobs"], list[JobStatus])}

    def done(self, name: str) -> JobStatus:
        """Return a job once it has a revision and waits for its next run."""
        return eventually(lambda: (job := self.jobs()[name]).revisions and job.status == "waiting for deadline" and job)

    def revisions(self, name: str) -> int:
        """Count the complete revisions of a job."""
        return len(list((self.base / name).glob("*.map")))

    def children(self) -> list[int]:
        """Return the processes whose arguments name the base directory, but for the scheduler."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = path.read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(argument.startswith(bytes(self.base)) for argument in arguments):
                found.append(int(path.parent.name))
        return found


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Running]:
    """A scheduler that is still to be started; jobs of it run only when they are told to, or if the first is now."""
    (tmp_path / "srv").mkdir()
    content = {
        "global": {"base-dir": str(tmp_path / "srv"), "telnet-addrs": "", "status-interval": 1},
        "schedules": {"default": {"daily": {"interval": "3650d", "keep": 3}}},
        "jobs": {},
    }
    with closing(Manager()) as manager:
        running = Running(tmp_path, content, manager)
        yield running
    (tmp_path / "hold").unlink(missing_ok=True)
    if running.process and running.process.poll() is None:
        running.stop()


@pytest.fixture
def answering() -> Iterator[Callable[[Path], None]]:
    """Let something answer at the socket in a base directory, as `answering(base)`."""
    with ExitStack() as stack:

        def serve(base: Path) -> None:
            server = stack.enter_context(socketserver.ThreadingUnixStreamServer(str(base / SOCKET), _Answer))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)

        yield serve


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b'{"ok": true, "text": ""}\n')


@pytest.fixture(scope="session")
def status() -> Callable[..., Status]:
    """Make up a status of jobs and what is different with them, as `status({"vm1": {"failures": 3}})`."""

    def job(name: str, keys: dict[str, Any]) -> JobStatus:
        usual = {
            "job": name,
            "sla": "TOO OLD" if keys.get("sla_overdue") else "OK",
            "sla_overdue": 0.0,
            "late_from": MIDNIGHT - timedelta(seconds=keys["sla_overdue"])
            if keys.get("sla_overdue")
            else MIDNIGHT + timedelta(days=1.5),
            "status": "waiting for deadline",
            "since": MIDNIGHT,
            "running_since": None,
            "interval": 86400.0,
            "revisions": 1,
            "last_time": MIDNIGHT,
            "compared_since": MIDNIGHT,
            "last_tags": ("daily",),
            "last_duration": 12.3,
            "next_time": MIDNIGHT + timedelta(days=1),
            "next_tags": ("daily", "weekly"),
            "failures": 0,
            "error": None,
            "unfinished": False,
            "manual_tags": (),
            "quarantine_reports": 0,
            "distrusted": 0,
            "unreadable": 0,
            "verification": "verified",
            "partly_verified": False,
            "consistency": "crash",
            "unfrozen": False,
        }
        return JobStatus(**(usual | keys))

    def make(jobs: dict[str, dict[str, Any]], **general: Any) -> Status:
        usual = {
            "version": "3.0.0",
            "pid": 1,
            "started": MIDNIGHT,
            "written": MIDNIGHT,
            "interval": 30.0,
            "configuration": "/etc/backy.conf",
            "loaded": MIDNIGHT,
            "configuration_error": None,
            "console": (),
            "problems": (),
            "plugins": (),
            "pools": {"fast": PoolStatus(1, 2, 3), "slow": PoolStatus(0, 0, 3)},
            "jobs": tuple(job(name, keys) for name, keys in jobs.items()),
        }
        return Status(**(usual | general))

    return make
