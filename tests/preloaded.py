"""backy in the appliance, where loading it takes ten times as long as running it: a process that has it loaded forks.

`python preloaded.py SOCKET` is that process. Without a socket, it ends when all is loaded, and so is compiled.
`asking.py` asks it for `backy ARGUMENT...` in its own folder, with its environment and its streams. If the first
argument is the name of a file of Python, that is run.
"""

from __future__ import annotations

import gc
import marshal
import os
import socket
import sys
import traceback
from contextlib import suppress

COMMANDS = ("init", "backup", "restore", "status", "forget", "purge", "release", "convert")
MODULES = [
    *("difflib", "json", "stevedore.driver", "stevedore.named", "backy_sources_file", "backy_sources_lvm"),
    *("backy.answers.space", "backy.answers.trial", "backy.backup.backup", "backy.conversion.convert"),
    *("backy.cli.progress", "backy.plugins.contract", "backy.plugins.guard"),
    *("backy.plugins.loading", "backy.making.making", "backy.restore.restore", "backy.retention.forget"),
    *("backy.retention.purge", "backy.scheduler.jobs.repositories", "backy_storages_chunked"),
    *("backy.verifiers.changed", "backy.verifiers.full", "backy_storages_cow"),
]
"""What commands import when they run."""


def serve(path: str) -> None:
    """Answer requests, one after the other, in a process of its own; return its id when it listens."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        if server := os.fork():
            print(server)  # noqa: T201  # for the host
            return
        # the host waits until nobody has these any more
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        while True:
            connection, _ = listening.accept()
            with connection:
                answer(connection)


def load() -> None:
    """Import what the commands import when they run."""
    import importlib

    import click

    from backy.cli.main import backy
    from backy.plugins import discovery

    for name in COMMANDS:
        backy.get_command(click.Context(backy), name)
    for name in MODULES:
        # one that has moved costs time, and harms no test
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # no distribution comes or goes, and to look for them takes a command longer than its work
    found = list(discovery._readable([]))  # what all other functions of the module go by
    discovery._readable = lambda _: iter(found)
    # what is loaded stays as it is: a child does not copy it to look for garbage
    gc.freeze()


def answer(connection: socket.socket) -> None:
    """Run the command of a request in a child, and tell its exit code."""
    length, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    text = b""
    while len(text) < int.from_bytes(length, "big"):
        text += connection.recv(2**20)
    child = os.fork()
    if not child:
        run(*marshal.loads(text), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def run(arguments: list[str], folder: str, environment: dict[bytes, bytes], descriptors: list[int]) -> None:
    """Be the command of a request; does not return."""
    import runpy

    from backy.cli.main import main

    for stream, descriptor in enumerate(descriptors):
        os.dup2(descriptor, stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()})
    sys.argv = arguments
    code: object = 70
    try:
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


if __name__ == "__main__":
    load()
    for socket_path in sys.argv[1:]:
        serve(socket_path)
