"""Reaches a machine, and sends commands of QMP, QEMU's machine protocol: by its monitor's socket, or by libvirt."""

import asyncio
import fcntl
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from qemu.qmp import ConnectError, QMPClient, QMPError

from backy.api import SourceBusyError, SourceError
from backy.debian import debian_modules
from backy.durable import closed_at_end
from backy.errors import raising
from backy_sources_qemu.config import Format, QemuConfig

_RUN: Final = Path("/run")
TIMEOUT: Final = 60.0
"""Seconds to wait for an answer of QEMU."""
_SILENT: Final = logging.getLogger(f"{__name__}.library")
_SILENT.setLevel(logging.CRITICAL + 1)
Command = Callable[..., Any]
"""Executes a command of QMP, by its name and its arguments, in whose names `_` stands for `-`. Raises MonitorError.

An open file may belong to it, as `descriptor`. The answer is JSON, whose shape the command decides (qemu-qmp-ref(7)).
"""


def place(what: str, machine: str) -> Path:
    """Return the beginning of paths for a machine or an image; raise SourceError if no folder can be made."""
    user = os.geteuid()
    folder = _RUN / "backy-qemu" if user == 0 else Path(tempfile.gettempdir(), f"backy-qemu-{user}")
    with raising(SourceError, f"{what}: {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise SourceError(f"{what}: {folder} has to be a folder of user {user} and closed to others; remove it")
    return folder / short(machine)


def short(text: str) -> str:
    """Return a name of a few characters that no other text gets."""
    return sha256(text.encode()).hexdigest()[:12]


@contextmanager
def locked(what: str, path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a machine or an image while the context lasts; raise SourceBusyError if it is not to wait."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with closed_at_end(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise SourceBusyError(f"{what}: another backup of it runs") from error
        yield


class MonitorError(SourceError):
    """QEMU refused a command, or does not answer."""


@contextmanager
def by_socket(what: str, socket: Path) -> Iterator[Command | None]:
    """Connect to the QEMU that listens on `socket`; None if nobody does. Raise MonitorError if it does not answer."""
    client = QMPClient()
    # what it has to tell is told once, by us
    client.logger = _SILENT
    with asyncio.Runner() as loop:

        def command(name: str, /, *, descriptor: int | None = None, **arguments: object) -> Any:  # noqa: ANN401  # JSON
            with _told(what, MonitorError, QMPError, OSError, EOFError):
                if descriptor is not None:
                    client.send_fd_scm(descriptor)
                return loop.run(asyncio.wait_for(client.execute(name, _dashed(arguments)), TIMEOUT))

        try:
            is_there = True
            with _told(what, MonitorError, QMPError, OSError, EOFError):
                try:
                    loop.run(asyncio.wait_for(client.connect(str(socket)), TIMEOUT))
                except ConnectError as error:
                    if not isinstance(error.exc, ConnectionRefusedError | FileNotFoundError):
                        raise
                    is_there = False
            yield command if is_there else None
        finally:
            with suppress(QMPError, OSError, EOFError, TimeoutError):
                loop.run(asyncio.wait_for(client.disconnect(), TIMEOUT))


def _dashed(arguments: dict[str, object]) -> dict[str, object]:
    """Return arguments with the names that QEMU gives them."""
    return {name.replace("_", "-"): value for name, value in arguments.items()}


def bindings() -> tuple[Any, Any]:
    """Return the modules `libvirt` and `libvirt_qemu`; raise MissingModuleError if there are none."""
    names = ("libvirtmod", "libvirt", "libvirtmod_qemu", "libvirt_qemu")
    _, libvirt, _, libvirt_qemu = debian_modules("python3-libvirt", *names)
    return libvirt, libvirt_qemu


class Domain(NamedTuple):
    """What libvirt tells of a disk of a machine."""

    uuid: str
    is_active: bool
    alias: str | None
    """The id of the device in QEMU, if the machine runs."""
    image: Path | None
    """The file or the device with the image; None if it is neither."""
    format: Format | None
    """Its format, if it is one that can be read while the machine is shut down."""
    description: bytes = b""
    """The XML by which `virsh define` makes the machine again."""


@contextmanager
def by_libvirt(what: str, config: QemuConfig) -> Iterator[tuple[Domain, Command]]:
    """Connect to libvirt, and find a disk; raise SourceError if there is none, or libvirt does not answer."""
    libvirt, libvirt_qemu = bindings()
    # it would print every error by itself, too
    libvirt.registerErrorHandler(lambda *_: None, None)
    with ExitStack() as stack:
        with _told(what, SourceError, libvirt.libvirtError):
            connection = stack.enter_context(closing(libvirt.open(config.uri)))
            if host := urlsplit(connection.getURI()).hostname:
                # its images are not those that have the same paths here
                raise SourceError(f"{what}: libvirt is that of {host}: run backy there, with a 'uri' without a host")
            handle = connection.lookupByName(config.domain or "")
            domain = parse(what, handle.XMLDesc(), config.disk or "")
            domain = domain._replace(description=handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).encode())

        def command(name: str, /, *, descriptor: int | None = None, **arguments: object) -> Any:  # noqa: ANN401  # JSON
            text = json.dumps({"execute": name, "arguments": _dashed(arguments)})
            files = [] if descriptor is None else [descriptor]
            with _told(what, MonitorError, libvirt.libvirtError):
                answer = json.loads(libvirt_qemu.qemuMonitorCommandWithFiles(handle, text, files, 0)[0])
            if "error" in answer:
                raise MonitorError(f"{what}: {answer['error'].get('desc')}")
            return answer["return"]

        yield domain, command


def parse(what: str, text: str, target: str) -> Domain:
    """Read the XML of a machine; raise SourceError if it has no disk `target`."""
    root = ET.fromstring(text)  # noqa: S314  # libvirt has made it
    each = root.iterfind("devices/disk[@device='disk']")
    disks = {found.get("dev"): disk for disk in each for found in disk.iter("target")}
    if target not in disks:
        there = ", ".join(sorted(filter(None, disks))) or "none"
        raise SourceError(f"{what}: the machine has no disk {target}; it has: {there}")
    disk = disks[target]
    parts = {part.tag: part.attrib for part in disk}
    source, alias = parts.get("source", {}), parts.get("alias", {}).get("name")
    path, kind = source.get("file") or source.get("dev"), parts.get("driver", {}).get("type", "raw")
    image_format = cast("Format", kind) if kind in {"raw", "qcow2"} else None
    is_active = root.get("id") is not None
    return Domain(root.findtext("uuid", ""), is_active, alias, Path(path) if path else None, image_format)


@contextmanager
def _told(what: str, kind: type[SourceError], *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library raises into an error of this kind."""
    try:
        yield
    except errors as error:
        text = " ".join(str(error).split()) or f"the connection to QEMU is lost ({type(error).__name__})"
        if isinstance(error, TimeoutError):
            text = f"QEMU does not answer within {TIMEOUT:.0f} s; does another program use the monitor?"
        raise kind(f"{what}: {text}") from error
