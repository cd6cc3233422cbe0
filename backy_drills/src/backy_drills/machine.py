"""The guest in QEMU: without network, with few rights, bounded in memory and time, on overlays that are thrown away."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from select import select
from typing import Any, Final

from backy_drills.agent import answers, talk
from backy_drills.console import Console
from backy_files.sandbox import PATH, GuestError, Served, confined

_SEEN: Final = "console=ttyS0 panic=-1 systemd.show_status=1 plymouth.enable=0"
"""What is added to the command line, so that all is seen and a panic ends the guest."""
_CHEAP: Final = "nokaslr norandmaps mitigations=off init_on_alloc=0"
"""What the kernel shall not do if a processor is emulated: it takes long, and the guest has no enemies here."""
_PAUSE: Final = 0.2
"""Seconds after which the agent is asked again."""
_AGENT: Final = "org.qemu.guest_agent.0"


class Course:
    """How far a drill has come, and how long it may go on."""

    def __init__(self, within: float, evidence: Callable[[bytes], object], monotonic: Callable[[], float]) -> None:
        self.evidence = evidence
        """Takes what a person may want to see."""
        self.signs = dict[str, float]()
        """The seconds from the beginning to each sign of life."""
        self._within, self._monotonic, self._begin = within, monotonic, monotonic()

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._begin + self._within - self._monotonic()

    def sign(self, *names: str) -> None:
        """Note signs of life."""
        self.signs |= dict.fromkeys(names, round(self._monotonic() - self._begin, 1))


def arguments(disks: Served, command_line: str, memory: int, *, scsi: bool) -> list[str]:
    """Return QEMU's arguments: what the guest has, and nothing else, but for the port of its agent."""
    # emulation copies one byte at a time where a processor promises that it is fast at that
    accelerator, processor = ("kvm", "max") if disks.kvm else ("tcg,thread=multi", "max,-la57,-erms")
    device = "scsi-hd" if scsi else "virtio-blk-pci"
    found = f"""-nodefaults -no-user-config -no-reboot -display none -nic none -machine q35 -smp 2 -m {memory // 2**20}M
        -accel {accelerator} -cpu {processor} -object rng-builtin,id=chance -device virtio-rng-pci,rng=chance
        -serial stdio -device virtio-serial-pci -device virtserialport,chardev=agent,name={_AGENT}
        -device virtio-scsi-pci""".split()
    for at, (path, sector) in enumerate(disks.disks):
        # what the guest writes goes to a file that has no name any more, whose size the wrapper of QEMU limits
        server = f"file.driver=nbd,file.server.type=unix,file.server.path={path}"
        found += ["-drive", f"if=none,id=disk{at},format=raw,snapshot=on,cache=unsafe,{server}"]
        found += ["-device", f"{device},drive=disk{at},logical_block_size={sector},physical_block_size={sector}"]
    words = f"{command_line} {_SEEN} {'' if disks.kvm else _CHEAP}"
    return [*found, "-kernel", f"{disks.folder}/kernel", "-initrd", f"{disks.folder}/initrd", "-append", words]


def boot(disks: Served, words: list[str], command: str | None, course: Course) -> None:
    """Boot a guest until it lives, and have its agent run a command unless that is None.

    Raises:
        GuestError: it does not live, or the command fails.
    """
    port, theirs = socket.socketpair()
    qemu = [str(disks.qemu), *words, "-chardev", f"socket,id=agent,fd={theirs.fileno()}"]
    ends: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ends |= {"env": {"PATH": PATH, "TMPDIR": str(disks.work)}, "pass_fds": [theirs.fileno()]}
    with port, theirs, subprocess.Popen(confined(*qemu, kvm=disks.kvm), start_new_session=True, **ends) as process:  # noqa: S603  # a guest's are words of the kernel's command line only
        port.setblocking(False)
        try:
            _watch(process.stdout.fileno(), port, command, course)  # type: ignore[union-attr]  # it is a pipe
        finally:
            process.kill()


def _watch(told: int, port: socket.socket, command: str | None, course: Course) -> None:
    console, rest = Console(), b""
    turns = _turns(told, port, console, course)
    while console.awaited:
        next(turns)
    # nobody is asked before: what a command proves includes that the guest is up
    if command is not None:
        talking = talk(command, course.sign, course.evidence)
        words, due = next(talking), course.left()
        with suppress(StopIteration):  # of the talk
            for data in turns:
                if words and course.left() <= due:
                    # a guest that reads nothing must not stop this process
                    with suppress(BlockingIOError):
                        port.send(words)
                    words, due = b"", course.left() - _PAUSE
                rest, found = answers(rest, data)
                for answer in found:
                    words = talking.send(answer)


def _turns(told: int, port: socket.socket, console: Console, course: Course) -> Iterator[bytes]:
    """Follow the console; yield what the port has, again and again while there is time and hope."""
    while course.left() > 0:
        ready = select([told, port.fileno()], [], [], max(min(course.left(), _PAUSE), 0))[0]
        if told in ready:
            course.evidence(data := os.read(told, 2**16))
            course.sign(*console.take(data))
            if console.fault:
                raise GuestError(console.fault)
        yield port.recv(2**16) if port.fileno() in ready else b""
    raise GuestError(f"its console says last: {console.last}" if console.awaited else "the guest agent does not answer")
