"""Shows revisions to others until they are told to end: as a mount, and one of them over NBD.

A mount answers the kernel. The NBD server is nbdkit with its plugin `file`, on a mount that is made for it.
"""

import errno
import fcntl
import logging.handlers
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from backy.durable import closed_at_end
from backy.errors import BackyError, TargetError
from backy.mount.active import SUBTYPE, mounts, unmount
from backy.mount.open_images import ChunkCache, ImageFile
from backy.mount.tree import Names, Single
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.system.locking import PURGE_LOCK, shared
from backy.terminal.plain import PlainFormatter
from backy.text.phrases import counted

log = logging.getLogger(__name__)
_ENDED_BY_SIGNAL = 8
"""The value that fuse_main (fuse.h) returns when a signal ended its loop."""
_SYSTEM_LOG = Path("/dev/log")
_PREFIX = "backy-nbd-"
_PAUSE = 0.05
"""Seconds between two looks at nbdkit."""
PORT = 10809
"""The port that IANA assigned to NBD."""


def serve(
    tree: Names, mountpoint: Path, *, cache: int, foreground: bool, began: Callable[[], None] = lambda: None
) -> None:
    """Mount `tree` and answer the kernel until the end of the mount. In the background, return at once.

    `began` is called at the kernel's first request. It must not use the mount itself.

    Raises:
        TargetError: `mountpoint` is no folder, or has a mount of backy already.
        BackyError: FUSE is missing or does not mount, or a single image can not be opened.
    """
    mountpoint = mountpoint.resolve()
    if any(mount.path == mountpoint for mount in mounts()):
        raise TargetError(f"{mountpoint} has a mount of backy already; 'backy unmount {mountpoint}' ends it")
    if not mountpoint.is_dir():
        raise TargetError(f"{mountpoint} is no folder; make it first")
    # The import loads libfuse, which may be missing.
    try:
        from backy.mount.operations import OPTIONS, FileSystem, Operations
    except (OSError, AttributeError) as error:
        raise BackyError(f"there is no libfuse 3: {error}; Debian has it in the package 'fuse3'") from error
    operations = Operations(tree, ChunkCache(cache), mountpoint, began)
    if isinstance(tree, Single):
        operations.hold(tree.file)
    if not foreground:
        _log_to_system()
    # libfuse ends the mount on SIGTERM only if nobody else handles it.
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        # Images never change, so the kernel may keep their pages from one open to the next.
        options = {"ro": True, "fsname": SUBTYPE, "subtype": SUBTYPE, "default_permissions": True, "kernel_cache": True}
        FileSystem(operations, str(mountpoint), foreground=foreground, **options, **OPTIONS)
    except RuntimeError as error:
        if error.args == (_ENDED_BY_SIGNAL,):
            return
        raise BackyError(f"{mountpoint}: FUSE does not mount (libfuse says why, its code is {error})") from error
    finally:
        signal.signal(signal.SIGTERM, handler)
        # Possible after a lazy unmount or a signal; their readers get errors from now on.
        if operations.handles:
            were = counted(len(operations.handles), "file was", "files were")
            log.warning("%s was unmounted while %s open", mountpoint, were)


def _log_to_system() -> None:
    """Send warnings to the system's log too, because nobody sees the output of a program in the background."""
    if not _SYSTEM_LOG.exists():
        return
    handler = logging.handlers.SysLogHandler(str(_SYSTEM_LOG))
    handler.setFormatter(PlainFormatter("backy[%(process)d]: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)


class Server(NamedTuple):
    """The settings of a server, which listens at a Unix socket, or at a host and a port.

    With neither socket nor host, it listens at a socket in a folder of this user only.
    """

    writable: bool
    """Whether clients may write. Writes go to a temporary file of nbdkit and are lost at the end."""
    cache: int
    """Bytes of memory for chunks that were read lately."""
    socket: Path | None = None
    host: str = ""
    port: int = PORT

    @property
    def uri(self) -> str:
        """The URI for clients, as in the NBD project's doc/uri.md."""
        if self.socket is not None:
            return f"nbd+unix:///?socket={self.socket}"
        return f"nbd://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def options(self) -> list[str]:
        """The options for nbdkit."""
        if self.socket is not None:
            return ["--unix", str(self.socket)]
        return ["--ipaddr", self.host, "--port", str(self.port)]


def serve_nbd(repository: Repository, revision: Revision, server: Server, ready: Callable[[str], None]) -> None:
    """Serve a revision until SIGTERM or Ctrl-C; call `ready` with the URI when clients can connect.

    Raises:
        BackyError: FUSE or nbdkit is missing, the address can not be used, or the revision can not be opened.
    """
    if shutil.which("nbdkit") is None:
        raise BackyError("there is no nbdkit; Debian has it in the package 'nbdkit'")
    clean_up()
    # A machine may run from the image. The lock prevents that a purge takes its data away after a forget.
    with _folder() as folder, shared(repository.directory, PURGE_LOCK), _socket(server.socket):
        (folder / "mount").mkdir()
        single = Single(ImageFile(repository, repository.records.current(revision)))
        if not server.host:
            server = server._replace(socket=server.socket or folder / "socket")
        kind = "--filter=cow" if server.writable else "--readonly"
        arguments = [*server.options, kind, "file", f"file={folder / 'mount' / revision.id}"]
        with _nbdkit(folder, arguments, lambda: ready(server.uri)) as begin:
            serve(single, folder / "mount", cache=server.cache, foreground=True, began=begin)


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for this server; whoever finds it later can tell by its lock whether the server runs still."""
    # the lock ends last, so that nobody takes what is just being removed for what a killed server left
    with ExitStack() as lock, tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        lock.enter_context(_locked(Path(name)))
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; raises BlockingIOError if a server that runs holds it."""
    with closed_at_end(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def clean_up() -> None:
    """Unmount and remove what servers of this user have left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            # Without `mount` another one begins, which does not hold its lock yet. Only the folder is asked: a mount
            # whose server is dead answers nobody.
            if folder.lstat().st_uid != os.geteuid() or folder / "mount" not in folder.iterdir():
                continue
            with _locked(folder):
                with suppress(TargetError):
                    unmount(folder / "mount")
                shutil.rmtree(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # it runs, or has just ended
        except OSError as error:
            log.warning("%s is left of a server that was killed, and can not be removed: %s", folder, error)


@contextmanager
def _socket(path: Path | None) -> Iterator[None]:
    """Take over the place of a socket that nobody listens at, and remove it at the end.

    Raises:
        TargetError: somebody listens there, or it is no socket.
    """
    if path is None:
        yield
        return
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) != errno.ECONNREFUSED:
                raise TargetError(f"{path} is in use: another server listens there")
        path.unlink()
    elif os.path.lexists(path):
        raise TargetError(f"{path} is there already, and is no socket")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # nbdkit leaves it


@contextmanager
def _nbdkit(folder: Path, arguments: list[str], ready: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Yield what starts nbdkit, to be called when the mount is there; end nbdkit at the end.

    A thread watches it, because the main thread answers the kernel. `ready` is called when clients can connect.

    Raises:
        BackyError: nbdkit ended by itself, or `ready` raised an OSError.
    """
    pid_file, printed = folder / "pid", folder / "log"
    command = ["nbdkit", "--foreground", "--exit-with-parent", "--pidfile", str(pid_file), *arguments]
    stopping = threading.Event()
    failures: list[str] = []

    def run() -> None:
        # Threads of libfuse block the signals that end nbdkit, and it would inherit that.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            with printed.open("wb") as output:
                # A process group of its own: Ctrl-C must reach this process only, which then ends nbdkit. An end of
                # nbdkit before that would count as a failure.
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=output, process_group=0)  # noqa: S603  # no shell
        except OSError as error:
            failures.append(f"nbdkit can not be run: {error}")
        else:
            while process.poll() is None and not failures and not stopping.wait(_PAUSE):
                # nbdkit writes its pid file when it listens.
                if pid_file.exists():
                    pid_file.unlink()
                    failures.extend(_told(ready))
            process.terminate()
            process.wait()
            if stopping.is_set():
                return
            text = " ".join(printed.read_text(errors="replace").split())
            failures.append(f"nbdkit ended with exit code {process.returncode}: {text}")
        # The main thread ends the mount, and goes on; without a mount it does so already.
        if any(mount.path == (folder / "mount").resolve() for mount in mounts()):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    thread = threading.Thread(target=run, name="nbdkit")
    try:
        yield thread.start
    finally:
        stopping.set()
        if thread.ident is not None:
            thread.join()
    if failures:
        raise BackyError(failures[0])


def _told(ready: Callable[[], None]) -> Iterator[str]:
    """Call `ready`; yield why that fails."""
    try:
        ready()
    except OSError as error:
        yield f"nobody can be told where to connect: {error.strerror}"
