"""Measures copies: `python -m benchmarks.copies` pulls an image from a directory, and by ssh over a slow and long line.

What is pulled from a directory is compared with `cp` and hashing the same files. The line is a proxy before a real sshd
on this machine. Needs root and openssh-server.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.images import PAGE, build
from benchmarks.measure import Command, Measurement, measure, run

BACKY = Path(sys.executable).with_name("backy")
MIB = 2**20
_PIECE = 64 * 1024
_HASH = (
    "import sys, pathlib, blake3\n"
    "for path in pathlib.Path(sys.argv[1]).rglob('*'):\n"
    "    path.is_file() and blake3.blake3(path.read_bytes()).digest()\n"
)
_MEASURED = (
    "import resource, subprocess, sys\n"
    "code = subprocess.run(sys.argv[2:]).returncode\n"
    "found = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
    "open(sys.argv[1], 'a').write(f'{found}\\n')\n"
    "sys.exit(code)\n"
)


@dataclass
class Line:
    """One direction of a line: all connections share its rate."""

    rate: float
    """Bytes a second."""
    delay: float
    """Seconds on the way."""
    free: float = 0.0
    """When the line is free again."""
    bytes: int = 0
    """How many went over it."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bring what is read to the other end, in time."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = asyncio.create_task(self._deliver(queue, writer))
        content = b"-"
        while content:
            try:
                content = await reader.read(_PIECE)
            except OSError:
                content = b""
            now = asyncio.get_running_loop().time()
            self.free = max(self.free, now) + len(content) / self.rate
            self.bytes += len(content)
            queue.put_nowait((self.free + self.delay, content))
            # a router keeps some tens of milliseconds
            await asyncio.sleep(max(self.free - now - 0.03, 0))
        await delivering

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        content = b"-"
        while content:
            due, content = await queue.get()
            await asyncio.sleep(max(due - asyncio.get_running_loop().time(), 0))
            try:
                writer.write(content)
                await writer.drain()
            except OSError:
                break
        writer.close()


@contextmanager
def proxy(port: int, to: int, rate: float, round_trip: float) -> Iterator[tuple[Line, Line]]:
    """Lead connections to `port` to another port of this machine, with so many bytes a second, and so long a way."""
    lines = Line(rate, round_trip / 2), Line(rate, round_trip / 2)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(lines[0].carry(reader, back), lines[1].carry(there, writer))

    async def serve() -> None:
        async with await asyncio.start_server(connected, "127.0.0.1", port):
            await asyncio.to_thread(ended.wait)

    ended = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        thread.join(10)


@contextmanager
def sshd(folder: Path, port: int, shown: int) -> Iterator[Path]:
    """Serve `folder/base`; yield a folder with a program `ssh` that goes to the port `shown`."""
    for name in ("host", "key"):
        run(Command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]))
    (folder / "measured.py").write_text(_MEASURED)
    (folder / "served").write_text(
        "set -- $SSH_ORIGINAL_COMMAND\n"
        f"exec {sys.executable} {folder}/measured.py {folder}/memory {BACKY} serve $3 {folder}/base\n"
    )
    key, host = ((folder / f"{name}.pub").read_text() for name in ("key", "host"))
    (folder / "authorized_keys").write_text(f'restrict,command="sh {folder}/served" {key}')
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{shown} {host}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PidFile none\nUsePAM yes\nStrictModes no\nPasswordAuthentication no\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n HostName 127.0.0.1\n Port {shown}\n User root\n IdentityFile {folder}/key\n"
        f" UserKnownHostsFile {folder}/known_hosts\n"
    )
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/ssh_config "$@"\n')
    (folder / "bin/ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([shutil.which("sshd") or "sshd", "-D", "-f", str(folder / "sshd_config")]) as daemon:
        time.sleep(1)
        try:
            yield folder / "bin"
        finally:
            daemon.terminate()


def change(image: Path, share: float, seed: int) -> None:
    """Write random bytes to some pages here and there."""
    chance, pages = random.Random(seed), image.stat().st_size // PAGE
    with image.open("r+b") as stream:
        for page in chance.sample(range(pages), int(pages * share)):
            stream.seek(page * PAGE)
            stream.write(chance.randbytes(PAGE))


@click.command()
@click.option("--size", default=1024, show_default=True, help="MiB of the image.")
@click.option("--rate", default=200.0, show_default=True, help="Mbit/s of the line.")
@click.option("--round-trip", default=150.0, show_default=True, help="Milliseconds there and back.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Folder for images, which stay there.")
def command(size: int, rate: float, round_trip: float, work: Path | None) -> None:
    """Measure copies."""
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-", dir=work) as temporary:
        folder = Path(temporary)
        (folder / "base").mkdir()
        (folder / "base/.backy").touch()
        image, origin = (work or folder) / f"copies-{size}.img", folder / "base/vm"
        build(image, size * MIB)
        shutil.copyfile(image, folder / "disk.img")
        backy(folder, ["-b", str(origin), "init", "file", str(folder / "disk.img")])
        backy(folder, ["-b", str(origin), "backup", "daily"])
        click.echo("| | wall s | processor s | MiB/s | peak MiB here | peak MiB there |\n|---|---|---|---|---|---|")
        stored = sum(path.stat().st_size for path in origin.rglob("*") if path.is_file())
        near(folder, origin, stored)
        far(folder, origin, rate * 1e6 / 8, round_trip / 1000)


def near(folder: Path, origin: Path, stored: int) -> None:
    """Measure copies on this machine."""
    (folder / "hash.py").write_text(_HASH)
    script = f"cp -a {origin} {folder}/cp && {sys.executable} {folder}/hash.py {folder}/cp"
    show("cp -a, and BLAKE3 of all files", stored, measure(Command(["sh", "-c", script]), folder))
    show("pull of a directory", stored, backy(folder, ["-b", str(folder / "near"), "pull", str(origin)]))
    show("the same again: nothing to do", 0, backy(folder, ["-b", str(folder / "near"), "pull", str(origin)]))
    change(folder / "disk.img", 0.01, 1)
    before = sum(path.stat().st_size for path in origin.rglob("*") if path.is_file())
    backy(folder, ["-b", str(origin), "backup", "daily"])
    day = sum(path.stat().st_size for path in origin.rglob("*") if path.is_file()) - before
    show("pull of 1 % of the pages", day, backy(folder, ["-b", str(folder / "near"), "pull", str(origin)]))
    shutil.rmtree(folder / "near")
    shutil.rmtree(folder / "cp")


def far(folder: Path, origin: Path, rate: float, round_trip: float) -> None:
    """Measure copies over a line."""
    from tests.ports import unused_port

    ports = unused_port(), unused_port()
    environment = {"PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    with sshd(folder, ports[0], ports[1]), proxy(ports[1], ports[0], rate, round_trip) as (there, back):

        def copied(what: str, words: list[str], line: Line) -> None:
            (folder / "memory").write_text("0\n")
            before = line.bytes
            found = backy(folder, words, environment)
            time.sleep(1)
            memory = max(map(int, (folder / "memory").read_text().split()))
            sent = line.bytes - before
            show(f"{what}, {sent / found.wall / rate:.0%} of the line", sent, found, memory * 1024)

        copied("pull by ssh: all", ["-b", str(folder / "far"), "pull", "-r", "1", "ssh://there/vm"], back)
        copied("pull by ssh: 1 % of the pages", ["-b", str(folder / "far"), "pull", "ssh://there/vm"], back)
        copied("pull by ssh: nothing to do", ["-b", str(folder / "far"), "pull", "ssh://there/vm"], back)
        origin = origin.rename(folder / "vm")
        copied("push by ssh: all", ["-b", str(origin), "push", "-r", "1", "ssh://there/vm"], there)
        copied("push by ssh: 1 % of the pages", ["-b", str(origin), "push", "ssh://there/vm"], there)


def backy(folder: Path, words: list[str], environment: dict[str, str] | None = None) -> Measurement:
    """Run backy."""
    return measure(Command([str(BACKY), *words], environment=environment or {}), folder)


def show(what: str, size: int, found: Measurement, there: int | None = None) -> None:
    """Print a row."""
    cells = [
        what,
        f"{found.wall:.2f}",
        f"{found.cpu:.2f}",
        f"{size / MIB / found.wall:.1f}",
        f"{found.memory / MIB:.0f}",
    ]
    click.echo(f"| {' | '.join(cells)} | {there / MIB if there else 0:.0f} |")


if __name__ == "__main__":
    command()
