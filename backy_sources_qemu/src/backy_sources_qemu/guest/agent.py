"""Freezes or thaws a guest: python -m backy_sources_qemu.guest.agent freeze|thaw socket PATH, or domain NAME [URI].

Talks to QEMU's agent in the guest by the socket of its port, or has libvirt do it. This needs nothing of backy, so that
it begins at once.
"""

import json
import os
import socket
import subprocess
import sys
from io import BufferedRWPair

TIMEOUT = 60.0
"""Seconds after which the agent counts as gone."""


NOTHING = "froze nothing: no file system that can be frozen is mounted in the guest"

GONE = ("failed to get domain", "domain is not running")
"""Words of virsh that tell that there is nothing to thaw."""


def main(act: str, way: str, *place: str) -> str | None:
    """Have the agent do it; return what is wrong, or None."""
    return _by_libvirt(act, *place) if way == "domain" else _by_socket(act, *place)


def is_shut_off(domain: str, uri: str = "") -> bool:
    """Tell whether libvirt knows that a machine does not run."""
    return _virsh("domstate", domain, uri)[1] == "shut off"


def _by_libvirt(act: str, domain: str, uri: str = "") -> str | None:
    is_done, told = _virsh(f"domfs{act}", domain, uri)
    if not is_done:
        return None if act == "thaw" and any(words in told for words in GONE) else told
    return f"the guest agent of {domain} {NOTHING}" if told.startswith("Froze 0 ") else None


def _virsh(command: str, domain: str, uri: str) -> tuple[bool, str]:
    """Run a command of virsh; return whether it succeeded, and what it has told."""
    words = ["virsh", *(["--connect", uri] if uri else []), command, "--", domain]
    try:
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)  # noqa: S603  # no shell
    except OSError as error:
        return False, f"virsh can not be run: {error.strerror}; it is in the package libvirt-clients"
    told = " ".join((done.stderr if done.returncode else done.stdout).split())
    return not done.returncode, told.removeprefix("error: ")


def _by_socket(act: str, path: str) -> str | None:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            with connection.makefile("rwb") as stream:
                _meet(stream)
                _send(stream, f"guest-fsfreeze-{act}")
                answer = json.loads(stream.readline() or b'{"error": "QEMU has closed the connection"}')
    except (OSError, ValueError) as error:
        return f"the guest agent at {path} does not answer: {error}"
    # a guest in which nothing is frozen has nothing to thaw either, as after the second time
    if "return" not in answer:
        return f"the guest agent at {path} does not {act}: {answer}"
    return None if answer["return"] or act == "thaw" else f"the guest agent at {path} {NOTHING}"


def _meet(stream: BufferedRWPair) -> None:
    """Skip what somebody else has asked before, who did not wait for the answer."""
    number = int.from_bytes(os.urandom(4))
    # the byte resets the parser of the agent, which may have half a command; its answer begins with one as well
    stream.write(b"\xff")
    _send(stream, "guest-sync-delimited", id=number)
    while line := stream.readline():
        if b"\xff" in line and json.loads(line.rpartition(b"\xff")[2]) == {"return": number}:
            return


def _send(stream: BufferedRWPair, command: str, **arguments: object) -> None:
    stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
