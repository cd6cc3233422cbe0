"""Finds a machine and its disk by libvirt, and sends commands to its QEMU."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from backy.api import SourceError
from backy.debian import debian_modules
from backy_sources_qemu.config import Format, QemuConfig
from backy_sources_qemu.monitor import Command, MonitorError, dashed


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
def connected(what: str, config: QemuConfig) -> Iterator[tuple[Domain, Command]]:
    """Connect to libvirt, and find a disk; raise SourceError if there is none, or libvirt does not answer."""
    libvirt, libvirt_qemu = bindings()
    # it would print every error by itself, too
    libvirt.registerErrorHandler(lambda *_: None, None)
    with ExitStack() as stack:
        with _told(what, SourceError):
            connection = stack.enter_context(closing(libvirt.open(config.uri)))
            if host := urlsplit(connection.getURI()).hostname:
                # its images are not those that have the same paths here
                raise SourceError(f"{what}: libvirt is that of {host}: run backy there, with a 'uri' without a host")
            handle = _handle(libvirt, connection, config.domain or "")
            domain = parse(what, handle.XMLDesc(), config.disk or "")
            domain = domain._replace(description=handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).encode())

        def command(name: str, /, *, descriptor: int | None = None, **arguments: object) -> Any:  # noqa: ANN401  # JSON
            text = json.dumps({"execute": name, "arguments": dashed(arguments)})
            files = [] if descriptor is None else [descriptor]
            with _told(what, MonitorError):
                answer = json.loads(libvirt_qemu.qemuMonitorCommandWithFiles(handle, text, files, 0)[0])
            if "error" in answer:
                raise MonitorError(f"{what}: {answer['error'].get('desc')}")
            return answer["return"]

        yield domain, command


def _handle(libvirt: Any, connection: Any, name: str) -> Any:  # noqa: ANN401  # libvirt has no types
    """Return a machine by its name, or by its UUID."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError:
        with suppress(libvirt.libvirtError):
            return connection.lookupByUUIDString(name)
        raise


@contextmanager
def _told(what: str, kind: type[SourceError]) -> Iterator[None]:
    """Turn what libvirt raises into an error of this kind."""
    libvirt, _ = bindings()
    try:
        yield
    except libvirt.libvirtError as error:
        raise kind(f"{what}: {' '.join(str(error).split())}") from error


def parse(what: str, text: str, target: str) -> Domain:
    """Read the XML of a machine; raise SourceError if it has no disk `target`."""
    root = ET.fromstring(text)  # noqa: S314  # libvirt has made it
    disks = {
        found.get("dev"): disk
        for disk in root.iterfind("devices/disk[@device='disk']")
        for found in disk.iter("target")
    }
    if target not in disks:
        there = ", ".join(sorted(filter(None, disks))) or "none"
        raise SourceError(f"{what}: the machine has no disk {target}; it has: {there}")
    disk = disks[target]
    source, driver, alias = disk.find("source"), disk.find("driver"), disk.find("alias")
    path = None if source is None else source.get("file") or source.get("dev")
    kind = "raw" if driver is None else driver.get("type", "raw")
    return Domain(
        uuid=root.findtext("uuid", ""),
        is_active=root.get("id") is not None,
        alias=None if alias is None else alias.get("name"),
        image=Path(path) if path else None,
        format=cast("Format", kind) if kind in {"raw", "qcow2"} else None,
    )
