#!/usr/bin/env python3
"""Make chunk files of the packs beside this file, so that restore.py can read them, without backy.

usage: python3 unpack.py            unpack what all revisions need
       python3 unpack.py ID ...     unpack what some revisions need

Copy all objects of the prefix into a folder first, as by `rclone copy` or `aws s3 cp --recursive`. The folder then has
to have room for the chunks once more. Needs Python 3.8 or newer and the program 'zstd'. Exit code 0: done; 1: not all
could be unpacked, one line for each says why; 2: wrong usage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

HERE = Path(__file__).resolve().parent
NOWHERE = 2**32 - 1


class Problem(Exception):
    """A problem that the operator can act on; its text is the one line that is shown."""


def column(text: str) -> tuple[int, ...]:
    """Return the numbers of a column."""
    content = base64.b64decode(text)
    return struct.unpack(f"<{len(content) // 4}I", content)


def parts(path: Path) -> dict[str, list[tuple[str, int, int]]]:
    """Return the parts of packs that a revision needs, by pack: name of the chunk file, offset, length."""
    done = subprocess.run(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Problem(f"{path.name} is damaged: {done.stderr.decode(errors='replace').strip()}")
    index = json.loads(done.stdout)
    if index["format"] != 1:
        raise Problem(f"{path.name} has the format {index['format']}; this program reads 1")
    ids = base64.b64decode(index["ids"]).hex()
    names = [ids[start : start + 64] for start in range(0, len(ids), 64)]
    columns = [column(index[name]) for name in ("pack", "offset", "length", "base")]
    found: dict[str, list[tuple[str, int, int]]] = {}
    for name, pack, offset, length, base in zip(names, *columns):
        file = f"{name}.zst" if base == NOWHERE else f"{name}.{names[base]}.delta"
        found.setdefault(index["packs"][pack], []).append((file, offset, length))
    return found


def is_whole(stream: BinaryIO, pack: str) -> bool:
    """Tell whether a pack ends with the table that it is named after."""
    end = stream.seek(0, os.SEEK_END) - 40
    if end >= 0:
        stream.seek(end)
        tail = stream.read(40)
        digest, length = tail[:32], int.from_bytes(tail[32:], "little")
        if digest.hex() == pack and length <= end:
            stream.seek(end - length)
            return hashlib.sha256(stream.read(length)).digest() == digest
    return False


def unpack(pack: str, wanted: list[tuple[str, int, int]], chunks: Path) -> None:
    """Write the chunk files of a pack."""
    with (HERE / "packs" / pack).open("rb") as stream:
        if not is_whole(stream, pack):
            # what is there of it has checksums of its own
            say(f"the pack {pack} is damaged: restore.py tells which chunks are")
        for file, offset, length in wanted:
            target = chunks / file[:2] / file
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                stream.seek(offset)
                temporary = target.with_suffix(".tmp")
                temporary.write_bytes(stream.read(length))
                temporary.rename(target)


def say(text: str) -> None:
    """Print a line for the operator."""
    print(f"unpack.py: {text}", file=sys.stderr)


def mark() -> Path:
    """Make the folder for the chunks, and write the marker by which restore.py finds it."""
    form, identity, *_ = [*(HERE / "store").read_text().split("\n"), ""]
    if form != "backy 3 packs":
        raise Problem(f"the file 'store' says {form!r}; this program reads 'backy 3 packs'")
    chunks = HERE / "chunks"
    chunks.mkdir(exist_ok=True)
    (chunks / "store").write_text(f"backy 3 chunks\n{identity}\n")
    return chunks


def main(arguments: list[str]) -> int:
    """Run the program with `arguments` and return its exit code."""
    if any(one.startswith("-") for one in arguments):
        print(__doc__)
        return 2
    paths = [HERE / f"{one}.packs" for one in arguments] or sorted(HERE.glob("*.packs"))
    code, wanted = 0, {}  # type: int, dict[str, set[tuple[str, int, int]]]
    try:
        if not shutil.which("zstd"):
            raise Problem("the program 'zstd' is missing: install it")
        chunks = mark()
        for path in paths:
            try:
                for pack, found in parts(path).items():
                    wanted.setdefault(pack, set()).update(found)
            except (Problem, OSError, ValueError, LookupError) as problem:
                say(f"{path.stem} can not be unpacked: {problem}")
                code = 1
        for pack in sorted(wanted):
            try:
                unpack(pack, sorted(wanted[pack]), chunks)
            except OSError as problem:
                say(f"the pack {pack} can not be read: {problem}")
                code = 1
    except (Problem, OSError) as problem:
        say(str(problem))
        return 1
    say(f"unpacked {len(wanted)} packs to {chunks}; go on with: python3 {HERE / 'restore.py'}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
