"""backy in the appliance, where loading it takes ten times as long as running it: a process that has it loaded forks.

`python preloaded.py FOLDER` is that process, and makes FOLDER/backy, a script that asks it for `backy ARGUMENT...` with
the script's own folder, environment and streams. Without a folder, it ends when all is loaded, and so is compiled. If
the first argument is the name of a file of Python, that is run.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import os
import random
import runpy
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

COMMANDS = """
-b vm init file image -o verifier=changed
-b vm backup daily
-b vm backup daily
-b vm restore restored
-b vm status --json
-b vm forget -r 1
-b vm purge
-b vm convert --storage cow
-b lvm init lvm no/volume
-b lvm backup daily
-b lvm release
"""
"""What makes backy import, and find out, what commands need."""
CLIENT = """#!/bin/sh
mkfifo {folder}/$$
printf '%s\\0' $# $$ "$@" >{folder}/requests
read code <{folder}/$$
exit $code
"""
"""Under emulation, a client in Python would take as long as what it asks for."""
PIDFD_GETFD = 438


def load() -> None:
    """Run commands in this process, so that its children have in memory what commands import and find out."""
    from backy.plugins import discovery, loading

    # no distribution comes or goes, and to look for them takes a command longer than its work
    found = list(discovery._readable())  # what all other functions of the module go by
    discovery._readable = lambda: iter(found)
    loading.managed = functools.cache(loading.managed)
    begun, streams = Path.cwd(), [os.dup(stream) for stream in (1, 2)]
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("wb") as nowhere:
        os.chdir(folder)
        Path("image").write_bytes(random.Random(1).randbytes(2**12))
        for line in COMMANDS.strip().splitlines():
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
            try_out(line.split())
        os.chdir(begun)
    for stream, kept in zip((1, 2), streams, strict=True):
        os.dup2(kept, stream)
        os.close(kept)
    # what is loaded stays as it is: a child does not copy it to look for garbage
    gc.freeze()


def try_out(words: list[str]) -> None:
    """Run a command, and leave this process as it was. One that fails costs time later, and harms no test."""
    from backy.cli.main import main

    root, output = logging.getLogger(), sys.stdout
    handlers, level = root.handlers[:], root.level
    with suppress(SystemExit):
        main(words)
    sys.stdout, root.handlers[:] = output, handlers
    root.setLevel(level)


def serve(folder: Path) -> None:
    """Answer requests, one after the other, in a process of its own; print its id when it listens."""
    (folder / "backy").write_text(CLIENT.format(folder=folder))
    (folder / "backy").chmod(0o755)
    os.mkfifo(folder / "requests")
    # with a writer of its own, it does not end when a client does
    requests = os.open(folder / "requests", os.O_RDWR)
    if server := os.fork():
        print(server)  # noqa: T201  # for the host
        return
    # the host waits until nobody has these any more
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    while True:
        # each request was written by one call, and so is read as a whole
        words = os.read(requests, 2**16).split(b"\0")
        while words[1:]:
            count, client = int(words[0]), int(words[1])
            answer(folder / str(client), client, [os.fsdecode(word) for word in words[2 : count + 2]])
            words = words[count + 2 :]


def answer(reply: Path, client: int, arguments: list[str]) -> None:
    """Run what a process asks for in a child, and write its exit code."""
    child = os.fork()
    if not child:
        run(client, arguments)
    _, status = os.waitpid(child, 0)
    reply.write_text(f"{os.waitstatus_to_exitcode(status)}\n")
    reply.unlink()


def run(client: int, arguments: list[str]) -> None:
    """Be the command that a process asks for; does not return."""
    from backy.cli.main import main

    code: object = 70
    try:
        take_the_place_of(client)
        sys.argv = arguments
        if sys.argv[0].endswith(".py"):
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        else:
            main(sys.argv)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001  # this process must not go on as the one that forks
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def take_the_place_of(client: int) -> None:
    """Take the streams, the folder and the environment of a process."""
    process = os.pidfd_open(client)
    for stream in range(3):
        os.dup2(ctypes.CDLL(None).syscall(PIDFD_GETFD, process, stream, 0), stream)
    os.chdir(f"/proc/{client}/cwd")
    variables = Path(f"/proc/{client}/environ").read_bytes().split(b"\0")[:-1]
    os.environ.clear()
    os.environ.update(os.fsdecode(one).split("=", 1) for one in variables)


if __name__ == "__main__":
    load()
    for name in sys.argv[1:]:
        serve(Path(name))
