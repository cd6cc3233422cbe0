#!/usr/bin/env python3
"""Restore an image from the backy repository that contains this file, without backy.

usage: python3 restore.py                 list the revisions
       python3 restore.py SPEC TARGET     write one of them to TARGET; --force before SPEC replaces a file

SPEC    a number (0 is the newest), an id or its beginning, a tag (its newest revision), or 'last'
TARGET  a new file, a block device, or '-' for standard output

Needs Python 3.8 or newer and, for chunks, the program 'zstd'. With the program 'b3sum' or the Python module 'blake3' it
also compares every chunk with its id. Exit code 0: done; 1: not restored, one line says why; 2: wrong usage.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator

REPOSITORY = Path(__file__).resolve().parent
CHUNK, PAGE = 4 * 2**20, 4096
LONGEST = CHUNK + 2**16  # bytes of a chunk, or of a delta with all its pages
MEMBERS: dict[str, dict[str, type]] = {
    ".rev": {"format": int, "id": str, "seq": int, "timestamp": str, "size": int, "tags": list, "map_digest": str},
    ".state": {"format": int, "id": str, "tags": list, "distrusted": int},
}


class Problem(Exception):
    """A problem that the operator can act on; its text is the one line that is shown."""


def run(program: str, content: bytes) -> bytes:
    """Run a program with `content` as its input and return its output, which no chunk makes longer than `LONGEST`."""
    with tempfile.TemporaryFile() as given:
        given.write(content)
        given.seek(0)
        with subprocess.Popen(program.split(), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            streams: Any = process
            found: bytes = streams.stdout.read(LONGEST + 1)
            streams.stdout.close()  # what a frame expands to may have no end: the program is ended by SIGPIPE
            message = " ".join(streams.stderr.read().decode(errors="replace").split())
    if process.returncode or len(found) > LONGEST:
        raise Problem(f"{program} says: {message or f'exit status {process.returncode}'}")
    return found


def read_file(path: Path, limit: int = 2**26) -> bytes:
    """Return the content of a file: a pipe by its name would never end, and a sparse file claims any length."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise Problem(f"{path.name} is no regular file, or has more than {limit} bytes")
        return stream.read()


def find_blake3() -> Callable[[bytes], str] | None:
    """Return the function that computes ids; None if this machine has none: zstd's checksum still finds damage."""
    try:
        from blake3 import blake3
    except ImportError:
        return (lambda content: run("b3sum", content)[:64].decode()) if shutil.which("b3sum") else None
    return lambda content: blake3(content).hexdigest()


BLAKE3 = find_blake3()


def read_document(path: Path) -> dict[str, Any]:
    """Read <id>.rev or <id>.state: JSON whose last member is the SHA-256 of all bytes before that member."""
    content, seal = read_file(path), b',\n  "digest": "'
    body = content.rpartition(seal)[0]
    if content != body + seal + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n':
        raise Problem(f"{path.name} is damaged: it fails its own checksum")
    try:
        found: dict[str, Any] = json.loads(content.decode())
        wrong = [key for key, kind in MEMBERS[path.suffix].items() if not isinstance(found[key], kind)]
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise Problem(f"{path.name} is damaged: {problem!r}") from problem
    if wrong or found["format"] != 3 or found["id"] != path.stem:
        raise Problem(f"{path.name} has format {found['format']} and is of {found['id']}; this program reads 3")
    return found


def read_revision(path: Path) -> dict[str, Any]:
    """Read <id>.rev, which never changes, and lay <id>.state over it, which has the tags in force and all doubt."""
    revision = read_document(path)
    try:
        return {**revision, **read_document(path.with_suffix(".state"))}
    except (Problem, OSError) as problem:
        say(f"{problem}: {path.stem} has the tags that it was made with, and counts as distrusted")
    # It can be restored all the same. That it was called wrong the journal tells, if not in which chunks.
    try:
        lines = read_file(REPOSITORY / "journal", 2**32).split(b"\n")
    except (Problem, OSError):  # of which `audit` tells
        lines = []
    wrong = any(b'"act":"doubt"' in line and path.stem.encode() in line for line in lines)
    return {**revision, "distrusted": True, "wrong": wrong and {"chunks": range(0, revision["size"], CHUNK)}}


def read_revisions() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the revisions, newest first, and the problems of damaged records by id."""
    sound, damaged = [], {}
    for path in [one for one in REPOSITORY.glob("[!.]*.rev") if one.name != "last.rev" and not one.is_symlink()]:
        try:
            sound.append(read_revision(path))
        except (Problem, OSError) as problem:
            damaged[path.stem] = str(problem)
    # The number is the order. The time, always in UTC, is only that of the machine's clock; 01Z comes before 01.5Z.
    for one in [one for one in sound if (REPOSITORY.parent / f".{one['id']}.running").exists()]:
        # None is what other disks of the machine lack, as their backup runs or was killed.
        if not all((REPOSITORY.parent / disk / f"{one['id']}.rev").exists() for disk in one["group"]["disks"]):
            sound.remove(one)
    return sorted(sound, key=lambda one: (one["seq"], one["timestamp"].rstrip("Z"), one["id"]), reverse=True), damaged


def doubt(revisions: list[dict[str, Any]], damaged: dict[str, str]) -> str | None:
    """Return why nobody can tell which revision is the newest, or None."""
    link = REPOSITORY / "last.rev"
    linked = Path(os.readlink(link)).stem if link.is_symlink() else None
    if not damaged or (revisions and revisions[0]["id"] == linked):
        return None
    text = f"record {min(damaged)} is damaged, and 'last.rev' does not tell if it is the newest"
    older = revisions and f"{revisions[0]['id']} restores the state of {revisions[0]['timestamp']}"
    return f"the {f'newest record {linked} is damaged' if linked in damaged else text}; {older or 'there is no other'}"


def select(spec: str) -> dict[str, Any]:
    """Return the revision that SPEC names."""
    revisions, damaged = read_revisions()
    named = [revision for revision in revisions if revision["id"] == spec]
    # One in the trash answers to its full id alone. 'last', a number or a tag may mean the damaged one.
    revisions = [revision for revision in revisions if not revision.get("forgotten")]
    if problem := damaged.get(spec) or (doubt(revisions, damaged) if not named else None):
        raise Problem(problem)
    tagged = [revision for revision in revisions if spec in ("last", "latest") or spec in revision["tags"]]
    found = named or tagged[:1] or [revision for revision in revisions if spec and revision["id"].startswith(spec)]
    if re.fullmatch("[0-9]+", spec):
        found = revisions[int(spec) :][:1]
    if len(found) != 1:
        raise Problem(f"{len(found) or 'no'} revisions answer to '{spec}'; without arguments they are listed")
    if found[0].get("wrong"):
        text = f"{found[0]['id']} is wrong in {len(found[0]['wrong']['chunks'])} chunks: the source had other content"
        if not named:
            raise Problem(f"{text}; its full id restores it as it is")
        say(text)
    return found[0]


def read_map(revision: dict[str, Any]) -> list[str]:
    """Return the ids of an image's chunks in hexadecimal, by index."""
    name, count = f"{revision['id']}.map", -(-revision["size"] // CHUNK)
    content = read_file(REPOSITORY / name, 2**30)
    header = struct.pack("<8sIIQQ", b"backymap", 1, CHUNK, revision["size"], 0)
    if content[:32] != header or len(content) != 32 + 32 * count + 32:
        raise Problem(f"{name} is damaged: it has another header or length than its record demands")
    if not content[-32:].hex() == revision["map_digest"] == (BLAKE3(content[:-32]) if BLAKE3 else content[-32:].hex()):
        raise Problem(f"{name} is damaged: it fails its own checksum, or is not the one that its record names")
    return [content[start : start + 32].hex() for start in range(32, 32 + 32 * count, 32)]


def find_store(revision: dict[str, Any]) -> Path:
    """Return the folder that has the chunks of a revision, or the raw image."""
    wanted, image, found = revision.get("storage"), REPOSITORY / revision["id"], []
    for path in sorted(REPOSITORY.glob("*/store")):
        kind, identity, *_ = [*read_file(path, PAGE).decode(errors="replace").split("\n"), ""]
        # Of a revision whose state is lost, only the files tell.
        lost = wanted is None and kind == ("backy 3 images" if image.is_file() else "backy 3 chunks")
        if lost or identity == wanted:
            found.append(image if kind == "backy 3 images" else path.parent)
            if kind not in ("backy 3 images", "backy 3 chunks"):
                raise Problem(f"{revision['id']} is stored as '{kind}', which this program does not read")
    if not found or (wanted is None and len(found) > 1):
        raise Problem(f"{revision['id']} is in the store {wanted or 'that config names'}: {len(found)} here may be it")
    if found[0] != image and not shutil.which("zstd"):
        raise Problem("the program 'zstd' is missing: install it")
    return found[0]


def read_frame(folder: Path, name: str) -> bytes:
    """Return the content of a chunk file, checked by zstd."""
    try:
        frame = read_file(folder / name[:2] / name, LONGEST)
        # zstd accepts frames without a checksum, too. Those were not written by backy.
        if frame[:4] != b"\x28\xb5\x2f\xfd" or not frame[4:5] or not frame[4] & 4:
            raise Problem("no zstd frame with a checksum")
        return run("zstd -dcq", frame)
    except (Problem, OSError) as problem:
        raise Problem(f"{name} is damaged: {problem}") from problem


def apply_delta(delta: bytes, base: bytes) -> bytes:
    """Cut the base, or fill it with zeroes, to the length of the chunk, and lay the pages of a delta over it."""
    magic, length, count, _spent = struct.unpack_from("<8sIIQ", delta)
    numbers, start = struct.unpack_from(f"<{count}H", delta, 24), 24 + 2 * count
    sizes = [min(PAGE, length - number * PAGE) for number in numbers]
    sound = magic == b"backydlt" and list(numbers) == sorted(set(numbers)) and start + sum(sizes) == len(delta)
    if not sound or length > CHUNK or min(sizes, default=1) <= 0:
        raise ValueError
    content = bytearray(base[:length].ljust(length, b"\0"))
    for number, size in zip(numbers, sizes):
        content[number * PAGE : number * PAGE + size] = delta[start : start + size]
        start += size
    return bytes(content)


@functools.lru_cache(maxsize=None)
def deltas(folder: Path) -> dict[str, list[str]]:
    """Return the files to read for each delta in one of the 256 folders: a full chunk, then what to lay over it."""
    found = {}
    for name in [path.name for path in folder.iterdir()]:
        # <id>.<id of the base>.delta, or <id>.<base>.<companion>.delta
        if re.fullmatch(r"[0-9a-f]{64}(\.[0-9a-f]{64}){1,2}\.delta", name):
            chunk_id, base, *companion = name.split(".")[:-1]
            found[chunk_id] = [f"{base}.zst", *(f"{one}.{base}.delta" for one in companion), name]
    return found


def read_chunk(store: Path, index: int, chunk_id: str, length: int) -> bytes:
    """Return a chunk of `length` bytes, checked as far as this machine can."""
    names, folder = [f"{chunk_id}.zst"], store / chunk_id[:2]
    if not store.is_dir():
        with os.fdopen(os.open(store, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            names, content = [store.name], os.pread(stream.fileno(), length, index * CHUNK)
    else:
        # A full chunk is read before a delta with the same id: it may have been stored to repair it.
        if folder.exists() and not (folder / names[0]).exists():
            names = deltas(folder).get(chunk_id, names)
        content = read_frame(store, names[0])
        for delta in names[1:]:
            try:
                content = apply_delta(read_frame(store, delta), content)
            except (ValueError, struct.error):
                raise Problem(f"{delta} is damaged: its parts do not fit together") from None
    if len(content) != length:
        raise Problem(f"{' or '.join(names)} is damaged: {len(content)} bytes instead of {length}")
    if BLAKE3 and BLAKE3(content) != chunk_id:
        raise Problem(f"{' or '.join(names)} is damaged: the content does not have this id")
    return content


def read_image(size: int, ids: list[str], store: Path) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield the chunks in order: offset, length, and content or None for zeroes."""

    def read(index: int) -> tuple[int, int, bytes | None]:
        start, length, one = index * CHUNK, min(CHUNK, size - index * CHUNK), ids[index]
        try:
            return start, length, None if one == "0" * 64 else read_chunk(store, index, one, length)
        except (Problem, OSError) as problem:
            raise Problem(f"chunk {index} of the image, {one}: {problem}") from problem

    # Each thread waits for a process of zstd. 32 chunks at once are 128 MiB of memory at most.
    with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        for start in range(0, len(ids), 32):
            yield from pool.map(read, range(start, min(start + 32, len(ids))))


def check_path(target: str, path: Path, force: bool) -> None:
    """Refuse what is not to be written: a file that exists, what other users put there, a misspelt device."""
    if REPOSITORY in path.parents:
        raise Problem(f"{target} lies in the repository: restore to another place")
    mine, folder, devices = (0, os.geteuid()), path.parent, Path("/dev")
    if Path(target).is_symlink() and os.lstat(target).st_uid not in mine:
        raise Problem(f"{target} is a symbolic link of another user")
    # /dev/shm is for files, and is another file system.
    in_dev = devices in path.parents and folder.exists() and folder.stat().st_dev == devices.stat().st_dev
    if in_dev and not path.exists():
        raise Problem(f"there is no device {target}")
    if path.is_file() and path.stat().st_uid not in mine and (os.geteuid() or not force):
        raise Problem(f"{target} belongs to another user; only root may replace it, by '--force' before SPEC")
    if path.is_file() and not force:
        raise Problem(f"{target} exists already; '--force' before SPEC replaces it")


def open_target(target: str, size: int, force: bool) -> BinaryIO:
    """Open standard output, a block device that is not in use, or a file, which is emptied; `force` replaces it."""
    if target == "-":
        if sys.stdout is None:
            raise Problem("standard output is closed")
        return open(sys.stdout.fileno(), "wb", closefd=False)
    path = Path(target).resolve()
    check_path(target, path, force)
    if path.exists() and not path.is_file() and not path.is_block_device():
        raise Problem(f"{target} is neither a file nor a block device; '-' writes to a pipe")
    # O_EXCL fails if a device is mounted.
    flag = os.O_EXCL if path.is_block_device() else os.O_CREAT
    stream = os.fdopen(os.open(path, os.O_RDWR | flag, 0o600), "r+b")
    try:
        # The locks that QEMU has while it has an image open. 37 is F_OFD_SETLK, which Python before 3.9 does not name.
        fcntl.fcntl(stream, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 100, 104, 0))
    except OSError as error:  # where locks are not supported, QEMU has none either
        if isinstance(error, BlockingIOError):
            raise Problem(f"{target} is in use: a running QEMU has it open, or another restore writes to it") from None
    if flag == os.O_CREAT:
        stream.truncate(0)
        stream.truncate(size)
    elif stream.seek(0, os.SEEK_END) < size:
        raise Problem(f"{target} has {stream.tell()} bytes, the image needs {size}")
    return stream


def write_image(pieces: Iterator[tuple[int, int, bytes | None]], stream: BinaryIO, mode: int) -> None:
    """Write the chunks to a target whose file mode is `mode`, 0 for standard output."""
    for offset, length, content in pieces:
        if mode:
            stream.seek(offset)
        # A device has old content, so zeroes are written to it, fast where a chunk is whole. In a new file, holes stay.
        if stat.S_ISBLK(mode) and content is None and length == CHUNK:
            fcntl.ioctl(stream, 0x127F, struct.pack("QQ", offset, length))  # BLKZEROOUT of linux/fs.h
        elif not stat.S_ISREG(mode):
            stream.write(bytes(length) if content is None else content)
        elif content is not None:
            for start in range(0, length, 16 * PAGE):
                if (part := content[start : start + 16 * PAGE]).count(0) < len(part):
                    stream.seek(offset + start)
                    stream.write(part)
    stream.flush()
    if mode:
        os.fsync(stream.fileno())


def restore(spec: str, target: str, force: bool) -> None:
    """Restore one revision; `force` replaces a file."""
    revision = select(spec)
    # First: a target is not touched for a revision that can not be restored.
    pieces = read_image(revision["size"], read_map(revision), find_store(revision))
    with open_target(target, revision["size"], force) as stream:
        write_image(pieces, stream, 0 if target == "-" else os.fstat(stream.fileno()).st_mode)
    if revision["distrusted"]:
        say(f"{revision['id']} is distrusted, by an operator or for damage that was found")
    if not BLAKE3:
        say("ids were not checked: install the program 'b3sum' or the Python module 'blake3' to have them checked")
    say(f"restored {revision['id']} of {revision['timestamp']}, {revision['size']} bytes")


def show() -> None:
    """Print the usage and the revisions."""
    revisions, damaged = read_revisions()
    print(f"{__doc__}\nRevisions in {REPOSITORY}:")
    numbers = iter(range(len(revisions)))
    for revision in revisions:
        number = "trash" if revision.get("forgotten") else next(numbers)
        line = f"{number:>5}  {revision['id']}  {revision['timestamp']:27}  {revision['size']:16}  "
        print(shown(line + ",".join(map(str, revision["tags"]))))
    say(*damaged.values(), *audit())


def audit() -> list[str]:
    """Return what contradicts the journal, by audit.py. An image is restored whatever it finds."""
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "audit.py")]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except (OSError, KeyboardInterrupt) as problem:
        return [f"the journal was not checked: {str(problem) or 'interrupted'}"]
    return done.stdout.decode(errors="replace").splitlines()


def shown(text: str) -> str:
    """Return a text that controls no terminal: a repository may come from anybody."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def say(*texts: str) -> None:
    """Print lines for the operator."""
    for text in texts if sys.stderr is not None else ():  # else they would go to standard output, behind the image
        print(f"restore.py: {shown(text)}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Run the program with `arguments` and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        show()
        return 0
    force = arguments[0] == "--force" and bool(arguments.pop(0))
    if len(arguments) != 2:
        say("give SPEC and TARGET; without arguments the usage and the revisions are shown")
        return 2
    try:
        restore(arguments[0], arguments[1], force)
    except (Problem, OSError, KeyboardInterrupt) as problem:
        say(f"not restored, what is in {arguments[1]} is not the image: {str(problem) or 'interrupted'}")
        return 1
    say(*audit())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
