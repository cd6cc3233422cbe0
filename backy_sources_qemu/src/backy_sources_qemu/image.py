"""Backs up the image of a machine that is shut down, and restores to one that is made, both through qemu-nbd.

qemu-nbd has the locks of QEMU on the image, so no machine can be started with a qcow2 image meanwhile. A machine that
is started with a raw one, and whatever else writes to an image, is noticed.
"""

import errno
import fcntl
import logging
import os
import re
import stat
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from backy.api import Consistency, RestoreTarget, SourceBusyError, SourceError, TargetError
from backy.durable import sync_folder
from backy.errors import raising, warned
from backy_sources_file import WriteWatch
from backy_sources_file import opened as open_file
from backy_sources_qemu import export
from backy_sources_qemu.bitmaps import BLOCK, MARK, Bitmap, base_of, bitmap_name, remove_others
from backy_sources_qemu.config import Format
from backy_sources_qemu.monitor import locked, place
from backy_sources_qemu.scratch import make_marked, run

log = logging.getLogger(__name__)
_MAGIC: Final = b"QFI\xfb"
_QEMU_LOCKS: Final = struct.Struct("hhqqi4x").pack(fcntl.F_WRLCK, os.SEEK_SET, 100, 104, 0)
"""struct flock for the bytes on which QEMU has locks while it has an image open (block/file-posix.c)."""


class Image(NamedTuple):
    """An image of a machine that is shut down."""

    what: str
    path: Path
    format: Format

    def alone(self) -> AbstractContextManager[None]:
        """Keep other backups of the image away."""
        return locked(self.what, place(self.what, str(self.path.resolve())), wait=False)

    def info(self) -> list[dict[str, Any]]:
        """Return what qemu-img tells of the image and of those behind it.

        Raises:
            SourceBusyError: a machine has started.
            SourceError: the image can not be read.
        """
        try:
            text = self._run("info", "--output=json", "--backing-chain", "-f", self.format, str(self.path))
        except SourceError as error:
            if "Failed to get" in str(error):
                raise SourceBusyError(f"{error}; a machine uses it: 'domain' or 'qmp' let backy reach that") from error
            raise
        return msgspec.json.decode(text, type=list[dict[str, Any]])

    def add_bitmap(self, name: str, size: int) -> None:
        """Begin a bitmap, which QEMU goes on with when the machine is started, with its mark."""
        self._run("bitmap", "--add", "-f", self.format, str(self.path), name)
        with open(os.memfd_create("mark"), "wb") as made:  # noqa: PTH123  # it has no path
            make_marked(self.what, made.fileno(), size)
            marked = ("--merge", MARK, "-b", f"/dev/fd/{made.fileno()}", "-F", "qcow2")
            words = ("--add", "--disable", "-g", f"{BLOCK}", *marked, "-f", self.format, str(self.path), name + MARK)
            run(self.what, "qemu-img", "bitmap", *words, descriptors=[made.fileno()])

    def remove_bitmap(self, name: str) -> None:
        """Remove a bitmap."""
        self._run("bitmap", "--remove", "-f", self.format, str(self.path), name)

    def bitmaps(self, info: dict[str, Any]) -> list[Bitmap]:
        """Return the bitmaps that an image has."""
        found = []
        for one in _data(info).get("bitmaps", []):
            name, flags = one["name"], one["flags"]
            fault = "could not be saved, as after a crash of QEMU" if "in-use" in flags else None
            # only of marks it is asked, and only a server tells
            is_empty = name.endswith(MARK) and not fault and not self._is_marked(name)
            found.append(Bitmap(name, fault, "auto" in flags, is_empty))
        return found

    def _is_marked(self, bitmap: str) -> bool:
        with export.opened(self.what, self.server(bitmap), bitmap) as opened:
            return any(extent.data for extent in opened.changes() or ())

    def server(self, bitmap: str | None) -> list[str]:
        """Return the command of a server of the image and of a bitmap."""
        words = [f"--bitmap={bitmap}"] if bitmap else []
        return ["qemu-nbd", "--read-only", "-f", self.format, *words, str(self.path)]

    def _run(self, *command: str) -> str:
        return run(self.what, "qemu-img", *command)


def image(what: str, path: Path, image_format: Format | None) -> Image:
    """Return an image; raise SourceError if its format is not told and its name and its content contradict."""
    if image_format is not None:
        return Image(what, path, image_format)
    # a guest writes what it likes to the begin of a raw image, so its content never decides
    guess: Format = "qcow2" if path.suffix == ".qcow2" else "raw"
    with raising(SourceError, f"{what}: {path}"), path.open("rb") as stream:
        is_qcow2 = stream.read(len(_MAGIC)) == _MAGIC
    if is_qcow2 != (guess == "qcow2"):
        begins = "begins" if is_qcow2 else "does not begin"
        raise SourceError(f"{what}: {path} {begins} like qcow2; write the key 'format' into the section 'source'")
    return Image(what, path, guess)


@contextmanager
def opened(image: Image, job_id: str, revision_id: str, parent: str | None) -> Iterator[export.Export]:
    """Open an image while its machine is shut down. Its bitmap replaces that of `parent` after a complete backup."""
    with image.alone():
        chain = image.info()
        found, size = image.bitmaps(chain[0]), int(chain[0]["virtual-size"])
        base = base_of(image.what, found, job_id, parent)
        bitmap = bitmap_name(job_id, revision_id, size)
        # what was not removed when a backup was killed
        remove_others(image.remove_bitmap, [one.name for one in found], job_id, [parent] if base and parent else [])
        is_kept = _begin(image, chain[0], bitmap, size)
        try:
            with ExitStack() as stack:
                files, is_elsewhere = _files(chain)
                watches = [WriteWatch(stack.enter_context(open_file(path)).descriptor) for path in files]
                since = base and base.name
                with export.opened(image.what, image.server(since), since) as opened:
                    opened.judge = partial(_worst, watches, is_elsewhere=is_elsewhere)
                    opened.earlier = base and base.known
                    yield opened
        except BaseException:
            if is_kept:
                with suppress(SourceError):
                    image.remove_bitmap(bitmap + MARK)
                    image.remove_bitmap(bitmap)
            raise
        remove_others(image.remove_bitmap, [base.name, base.name + MARK] if base else [], job_id, [revision_id])


def retain(image: Image, job_id: str, revision_ids: Collection[str]) -> None:
    """Remove a job's bitmaps whose revisions are not in `revision_ids`."""
    with image.alone():
        names = [one["name"] for one in _data(image.info()[0]).get("bitmaps", [])]
        remove_others(image.remove_bitmap, names, job_id, revision_ids)


def _data(info: dict[str, Any]) -> dict[str, Any]:
    """Return what qemu-img tells of an image beyond what all formats have."""
    data: dict[str, Any] = info.get("format-specific", {}).get("data", {})
    return data


def _begin(image: Image, info: dict[str, Any], bitmap: str, size: int) -> bool:
    """Begin a bitmap; return false, and log why if that is not usual, if the image can not have one."""
    if image.format != "qcow2" or _data(info).get("compat") == "0.10":
        return False
    with warned(log, "the next backup reads everything, as there will be no bitmap"):
        image.add_bitmap(bitmap, size)
        return True
    return False


def _files(chain: Sequence[dict[str, Any]]) -> tuple[list[Path], bool]:
    """Return the files of an image and of those behind it, and whether there is something that is no file of here."""
    names = [*(one["filename"] for one in chain), *filter(None, (_data(one).get("data-file") for one in chain))]
    # QEMU names others by their protocol, as in nbd://server
    files = [Path(name) for name in names if not re.match(r"[a-z0-9+-]+:", name)]
    return files, len(files) < len(names)


def _worst(watches: Sequence[WriteWatch], *, is_elsewhere: bool) -> Consistency:
    """Return what an image is like that consists of several files, some of which may be out of sight."""
    found = {watch.consistency for watch in watches} | ({"unknown"} if is_elsewhere else set[str]())
    return next(word for word in ("none", "unknown", "crash") if word in found)


@contextmanager
def restored(path: Path, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Make a qcow2 file, which gets its name when it is complete. Replace an existing one if `force` is set.

    Raises:
        TargetError: the file exists, is in use, or can not be made.
    """
    what, part = f"target {path}", path.with_name(f"{path.name}.incomplete")
    with ExitStack() as stack:
        with raising(TargetError, what):
            made = _make(part, _kept_away(stack, what, path, force=force))
            stack.callback(os.close, made)
        try:
            with ExitStack() as served:
                with raising(TargetError, what):
                    # QEMU takes whole sectors
                    run(what, "qemu-img", "create", "-q", "-f", "qcow2", str(part), str(-(-size // 512) * 512))
                    opened = served.enter_context(export.opened(what, ["qemu-nbd", "-f", "qcow2", str(part)]))
                yield export.ExportTarget(opened, is_empty=True)
            with raising(TargetError, what):
                os.fsync(made)
                part.rename(path)
                sync_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _kept_away(stack: ExitStack, what: str, path: Path, *, force: bool) -> int | None:
    """Open an existing file, and keep QEMU away from it until `stack` ends; return None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise TargetError(f"{what} is no file; 'nbd:' and paths are other targets")
    if not force:
        raise TargetError(f"{what} exists already; --force replaces it")
    try:
        # looking alone would leave QEMU the time of the restore to open it
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _QEMU_LOCKS)
    except OSError as error:
        # where locks are not supported, QEMU has none either
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise TargetError(f"{what} is in use: a running QEMU has it open; shut the machine down first") from error
    return descriptor


def _make(part: Path, existing: int | None) -> int:
    """Make a file that is not complete yet, with owner and mode of the one that it will replace."""
    try:
        made = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise TargetError(f"{part} exists: unless another restore writes to it now, remove it") from None
    if existing is not None:
        status = os.fstat(existing)
        with suppress(PermissionError):
            os.fchown(made, status.st_uid, status.st_gid)
        os.fchmod(made, stat.S_IMODE(status.st_mode))
    return made
