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
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator

REPOSITORY = Path(__file__).resolve().parent
CHUNK = 4 * 2**20
PAGE = 4096
ZERO_ID = "0" * 64
BLKZEROOUT = 0x127F  # ioctl of linux/fs.h: fills a range of a block device with zeroes
F_OFD_SETLK = 37  # Python before 3.9 does not name it


class Problem(Exception):
    """A problem that the operator can act on; its text is the one line that is shown."""


def run(program: str, content: bytes) -> bytes:
    """Run a program with `content` as its input and return its output."""
    done = subprocess.run(program.split(), input=content, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())
        raise Problem(f"{program} says: {message or f'exit status {done.returncode}'}")
    return done.stdout


def find_blake3() -> Callable[[bytes], str] | None:
    """Return the function that computes ids; None if this machine has neither of both."""
    # Python's library has no BLAKE3. Without it, the checksum of zstd still finds damage.
    try:
        from blake3 import blake3
    except ImportError:
        return (lambda content: run("b3sum", content)[:64].decode()) if shutil.which("b3sum") else None
    return lambda content: blake3(content).hexdigest()


BLAKE3 = find_blake3()

# revisions: <id>.rev, <id>.state and <id>.map ------------------------------------------------------------------------


def read_document(path: Path) -> dict[str, Any]:
    """Read <id>.rev or <id>.state: JSON whose last member is the SHA-256 of all bytes before that member."""
    content = path.read_bytes()
    seal = b',\n  "digest": "'
    body = content.rpartition(seal)[0]
    if content != body + seal + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n':
        raise Problem(f"{path.name} is damaged: it fails its own checksum")
    found: dict[str, Any] = json.loads(content.decode())
    if found["format"] != 3 or found["id"] != path.stem:
        raise Problem(f"{path.name} has format {found['format']} and is of {found['id']}; this program reads 3")
    return found


def read_revision(path: Path) -> dict[str, Any]:
    """Read <id>.rev, which never changes, and lay <id>.state over it, which has the tags in force and all doubt."""
    revision = read_document(path)
    try:
        state = read_document(path.with_suffix(".state"))
    except (Problem, OSError) as problem:
        # It can be restored all the same. Only what was known against it is lost.
        say(f"{problem}: {path.stem} has the tags that it was made with, and counts as distrusted")
        state = {"storage": None, "distrusted": True}
    revision.update(state)
    # Python before 3.11 does not read the Z.
    revision["time"] = datetime.fromisoformat(revision["timestamp"].replace("Z", "+00:00"))
    return revision


def read_revisions() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the revisions, newest first, and the problems of damaged records by id."""
    sound, damaged = [], {}
    for path in REPOSITORY.glob("*.rev"):
        if path.name == "last.rev" or path.is_symlink() or path.name.startswith("."):
            continue
        try:
            sound.append(read_revision(path))
        except (Problem, OSError) as problem:
            damaged[path.stem] = str(problem)
    # The number is the order. The time is only that of the machine's clock.
    return sorted(sound, key=lambda one: (one["seq"], one["time"], one["id"]), reverse=True), damaged


def doubt(revisions: list[dict[str, Any]], damaged: dict[str, str]) -> str | None:
    """Return why nobody can tell which revision is the newest, or None."""
    link = REPOSITORY / "last.rev"
    linked = Path(os.readlink(link)).stem if link.is_symlink() else None
    if not damaged or (revisions and revisions[0]["id"] == linked):
        return None
    if linked in damaged:
        text = f"the newest record {linked} is damaged"
    else:
        text = f"the record {min(damaged)} is damaged, and 'last.rev' does not tell if it is the newest"
    if not revisions:
        return f"{text}; there is no other"
    return f"{text}; {revisions[0]['id']} restores the state of {revisions[0]['timestamp']}"


def select(spec: str) -> dict[str, Any]:
    """Return the revision that SPEC names."""
    revisions, damaged = read_revisions()
    if spec in damaged:
        raise Problem(damaged[spec])
    named = [revision for revision in revisions if revision["id"] == spec]
    # 'last', a number or a tag may mean the damaged one.
    problem = doubt(revisions, damaged)
    if problem and not named:
        raise Problem(problem)
    if re.fullmatch("[0-9]+", spec):
        found = revisions[int(spec) :][:1]
    else:
        tagged = [revision for revision in revisions if spec in ("last", "latest") or spec in revision["tags"]]
        starting = [revision for revision in revisions if spec and revision["id"].startswith(spec)]
        found = named or tagged[:1] or starting
    if len(found) != 1:
        raise Problem(f"{len(found) or 'no'} revisions answer to '{spec}'; without arguments they are listed")
    return found[0]


def read_map(revision: dict[str, Any]) -> list[str]:
    """Return the ids of an image's chunks in hexadecimal, by index."""
    name = f"{revision['id']}.map"
    content = (REPOSITORY / name).read_bytes()
    count = -(-revision["size"] // CHUNK)
    header = struct.pack("<8sIIQQ", b"backymap", 1, CHUNK, revision["size"], 0)
    if content[:32] != header or len(content) != 32 + 32 * count + 32:
        raise Problem(f"{name} is damaged: it has another header or length than its record demands")
    if content[-32:].hex() != revision["map_digest"]:
        raise Problem(f"{name} is damaged: it does not end with the checksum that its record names")
    if BLAKE3 and BLAKE3(content[:-32]) != revision["map_digest"]:
        raise Problem(f"{name} is damaged: it fails its own checksum")
    return [content[start : start + 32].hex() for start in range(32, 32 + 32 * count, 32)]


# chunks: <first two digits>/<id>.zst, or <id>.<id of the base>.delta, or <id>.<base>.<companion>.delta ----------------


def find_store(revision: dict[str, Any]) -> Path:
    """Return the folder that has the chunks of a revision, or the raw image."""
    wanted, image, found = revision["storage"], REPOSITORY / revision["id"], []
    for path in sorted(REPOSITORY.glob("*/store")):
        kind, identity, *_ = [*path.read_text(errors="replace").split("\n"), ""]
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
        frame = (folder / name[:2] / name).read_bytes()
        # zstd accepts frames without a checksum, too. Those were not written by backy.
        if frame[:4] != b"\x28\xb5\x2f\xfd" or not frame[4:5] or not frame[4] & 4:
            raise Problem("no zstd frame with a checksum")
        return run("zstd -dcq", frame)
    except (Problem, OSError) as problem:
        raise Problem(f"{name} is damaged: {problem}") from problem


def apply_delta(delta: bytes, base: bytes) -> bytes:
    """Cut the base, or fill it with zeroes, to the length of the chunk, and lay the pages of a delta over it."""
    magic, length, count, _spent = struct.unpack_from("<8sIIQ", delta)
    numbers = struct.unpack_from(f"<{count}H", delta, 24)
    sizes = [min(PAGE, length - number * PAGE) for number in numbers]
    start = 24 + 2 * count
    if magic != b"backydlt" or list(numbers) != sorted(set(numbers)) or start + sum(sizes) != len(delta):
        raise ValueError
    if length > CHUNK or min(sizes, default=1) <= 0:
        raise ValueError
    content = bytearray(base[:length].ljust(length, b"\0"))
    for number, size in zip(numbers, sizes):
        content[number * PAGE : number * PAGE + size] = delta[start : start + size]
        start += size
    return bytes(content)


@functools.lru_cache(maxsize=None)
def deltas(folder: Path) -> dict[str, str]:
    """Return the names of the deltas in one of the 256 folders by id."""
    names = [path.name for path in folder.iterdir()]
    return {name[:64]: name for name in names if re.fullmatch(r"[0-9a-f]{64}(\.[0-9a-f]{64}){1,2}\.delta", name)}


def made_of(name: str) -> list[str]:
    """Return the names of the files to read for file `name`: the full chunk, then the deltas to lay over it."""
    _, *others = name.split(".")[:-1]
    companion = [f"{others[1]}.{others[0]}.delta"] if others[1:] else []
    return [f"{others[0]}.zst", *companion, name] if others else [name]


def read_chunk(store: Path, index: int, chunk_id: str, length: int) -> bytes:
    """Return a chunk of `length` bytes, checked as far as this machine can."""
    names = [f"{chunk_id}.zst"]
    folder = store / chunk_id[:2]
    if not store.is_dir():
        with store.open("rb") as stream:
            names, content = [store.name], os.pread(stream.fileno(), length, index * CHUNK)
    else:
        # A full chunk is read before a delta with the same id: it may have been stored to repair it.
        if folder.exists() and not (folder / names[0]).exists():
            names = made_of(deltas(folder).get(chunk_id, names[0]))
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
        length = min(CHUNK, size - index * CHUNK)
        chunk_id = ids[index]
        try:
            return index * CHUNK, length, None if chunk_id == ZERO_ID else read_chunk(store, index, chunk_id, length)
        except (Problem, OSError) as problem:
            raise Problem(f"chunk {index} of the image, {chunk_id}: {problem}") from problem

    # Each thread waits for a process of zstd. 32 chunks at once are 128 MiB of memory at most.
    with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        for start in range(0, len(ids), 32):
            yield from pool.map(read, range(start, min(start + 32, len(ids))))


# targets --------------------------------------------------------------------------------------------------------------


def check_path(target: str, path: Path, force: bool) -> None:
    """Refuse what is not to be written: a file that exists, what other users put there, a misspelt device."""
    if REPOSITORY in path.parents:
        raise Problem(f"{target} lies in the repository: restore to another place")
    mine = (0, os.geteuid())
    if Path(target).is_symlink() and os.lstat(target).st_uid not in mine:
        raise Problem(f"{target} is a symbolic link of another user")
    if not path.exists():
        # /dev/shm is for files, and is another file system.
        if (
            Path("/dev") in path.parents
            and path.parent.exists()
            and path.parent.stat().st_dev == Path("/dev").stat().st_dev
        ):
            raise Problem(f"there is no device {target}")
    elif path.is_file():
        if path.stat().st_uid not in mine and (os.geteuid() or not force):
            raise Problem(f"{target} belongs to another user; only root may replace it, by '--force' before SPEC")
        if not force:
            raise Problem(f"{target} exists already; '--force' before SPEC replaces it")


def refuse_in_use(target: str, stream: BinaryIO) -> None:
    """Take the locks that QEMU has while it has an image open."""
    try:
        fcntl.fcntl(stream, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 100, 104, 0))
    except BlockingIOError:
        raise Problem(f"{target} is in use: a running QEMU has it open, or another restore writes to it") from None
    except OSError:
        pass  # where locks are not supported, QEMU has none either


def open_target(target: str, size: int, force: bool) -> BinaryIO:
    """Open standard output, a block device that is not in use, or a file, which is emptied; `force` replaces it."""
    if target == "-":
        return open(sys.stdout.fileno(), "wb", closefd=False)
    path = Path(target).resolve()
    check_path(target, path, force)
    if path.is_block_device():
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_EXCL), "r+b")  # O_EXCL fails if it is mounted
        refuse_in_use(target, stream)
        capacity = stream.seek(0, os.SEEK_END)
        if capacity < size:
            raise Problem(f"{target} has {capacity} bytes, the image needs {size}")
    elif path.exists() and not path.is_file():
        raise Problem(f"{target} is neither a file nor a block device; '-' writes to a pipe")
    else:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        refuse_in_use(target, stream)
        stream.truncate(0)
        stream.truncate(size)
    return stream


def write_image(pieces: Iterator[tuple[int, int, bytes | None]], stream: BinaryIO, mode: int) -> None:
    """Write the chunks to a target whose file mode is `mode`, 0 for standard output."""
    for offset, length, content in pieces:
        # A device has old content, so zeroes are written to it, fast where a chunk is whole. In a new file, holes stay.
        if stat.S_ISBLK(mode) and content is None and length == CHUNK:
            fcntl.ioctl(stream, BLKZEROOUT, struct.pack("QQ", offset, length))
        elif not stat.S_ISREG(mode):
            if mode:
                stream.seek(offset)
            stream.write(bytes(length) if content is None else content)
        elif content is not None:
            for start in range(0, length, 16 * PAGE):
                part = content[start : start + 16 * PAGE]
                if part.count(0) < len(part):
                    stream.seek(offset + start)
                    stream.write(part)
    stream.flush()
    if mode:
        os.fsync(stream.fileno())


# the command ----------------------------------------------------------------------------------------------------------


def restore(spec: str, target: str, force: bool) -> None:
    """Restore one revision; `force` replaces a file."""
    revision = select(spec)
    store = find_store(revision)
    # The map first: a target is not touched for a revision that can not be restored.
    ids = read_map(revision)
    with open_target(target, revision["size"], force) as stream:
        mode = 0 if target == "-" else os.fstat(stream.fileno()).st_mode
        write_image(read_image(revision["size"], ids, store), stream, mode)
    if revision["distrusted"]:
        say(f"{revision['id']} is distrusted, by an operator or for damage that was found")
    if revision.get("wrong"):
        say(f"{revision['id']} is wrong in {len(revision['wrong']['chunks'])} chunks: the source had other content")
    if not BLAKE3:
        say("ids were not checked: install the program 'b3sum' or the Python module 'blake3' to have them checked")
    say(f"restored {revision['id']} of {revision['timestamp']}, {revision['size']} bytes")


def show() -> None:
    """Print the usage and the revisions."""
    revisions, damaged = read_revisions()
    print(f"{__doc__}\nRevisions in {REPOSITORY}:")
    for number, revision in enumerate(revisions):
        line = f"{number:4}  {revision['id']}  {revision['timestamp']:27}  {revision['size']:16}"
        print(line, ",".join(revision["tags"]), sep="  ")
    for problem in damaged.values():
        say(problem)


def say(text: str) -> None:
    """Print a line for the operator."""
    print(f"restore.py: {text}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Run the program with `arguments` and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        show()
        return 0
    force = arguments[0] == "--force"
    arguments = arguments[1:] if force else arguments
    if len(arguments) != 2:
        say("give SPEC and TARGET; without arguments the usage and the revisions are shown")
        return 2
    try:
        restore(arguments[0], arguments[1], force)
    except (Problem, OSError, KeyboardInterrupt) as problem:
        say(f"not restored, what is in {arguments[1]} is not the image: {problem or 'interrupted'}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
