"""Run commands in the appliance, one after the other, as the host asks for them on a virtio-serial port.

Each request and each answer is a line of JSON (`machine.Appliance.run` has the other end). This is the first process of
the guest, and is run by the host's Python from the host's files.
"""

import json
import subprocess
import sys
from io import BufferedReader
from pathlib import Path
from typing import Any

READY = {"ready": True}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the command of a request and tell how it ended."""
    try:
        # without a text, a command must not wait for what somebody types on the console
        ended = subprocess.run(request["command"], input=request["input"], capture_output=True, check=False, text=True)
    except OSError as error:
        return {"code": 127, "out": "", "err": str(error)}
    return {"code": ended.returncode, "out": ended.stdout, "err": ended.stderr}


def serve(port: str) -> None:
    """Answer the requests of a port until the host closes it."""
    with Path(port).open("r+b", buffering=0) as stream:
        stream.write(json.dumps(READY).encode() + b"\n")
        for line in BufferedReader(stream):
            reply = memoryview(json.dumps(answer(json.loads(line))).encode() + b"\n")
            while reply:
                reply = reply[stream.write(reply) :]


if __name__ == "__main__":
    serve(sys.argv[1])
