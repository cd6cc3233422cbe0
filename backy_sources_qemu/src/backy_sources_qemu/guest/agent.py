"""Freezes or thaws a guest: python -m backy_sources_qemu.guest.agent freeze|thaw SOCKET.

Talks to QEMU's agent in the guest by the socket of its port. This needs nothing of backy, so that it begins at once.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from io import BufferedRWPair

TIMEOUT = 60.0
"""Seconds after which the agent counts as gone."""


def main(act: str, path: str) -> str | None:
    """Have the agent do it; return what is wrong, or None."""
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
    is_done = "return" in answer and (answer["return"] or act == "thaw")
    return None if is_done else f"the guest agent at {path} froze nothing: {answer}"


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
