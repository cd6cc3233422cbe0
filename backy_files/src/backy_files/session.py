"""Talks with guestfish: commands by its standard input, and what they print."""

import base64
import os
import re
import secrets
import select
import string
import subprocess
from contextlib import suppress
from typing import Any, Final, Self

from backy_files.sandbox import GuestError, Sandbox, confined

_PATIENCE: Final = 300
"""Seconds without any sign after which a command counts as hanging: a guest can make the kernel do so."""
_PIECE: Final = 2_000_000
"""Bytes that a script sends at once. libguestfs takes no more than 4 MiB of text."""
_LONGEST: Final = 8000
"""Bytes of a line for guestfish, which takes what follows for another command; a multiple of 8."""
_PLAIN: Final = string.ascii_letters + string.digits
_PREFIX: Final = re.compile(r"^(\*stdin\*:\d+: )?((libguestfs|guestfish): (error: )?)?")


class Session:
    """A virtual machine with a revision's disk, and guestfish that commands it. Use it as a context."""

    def __init__(self, sandbox: Sandbox, *descriptors: int) -> None:
        with (sandbox.folder / "guestfish").open("wb") as errors:
            # Opened again to read: on one descriptor guestfish would go on writing where this process reads.
            self._errors = (sandbox.folder / "guestfish").open("rb")
            # What a guest wrote can not be this mark, which nobody knows before.
            self._mark = secrets.token_hex(16).encode() + b"\n"
            self._pipe = sandbox.folder / "pipe"
            command = confined("guestfish", *sandbox.drive, "--keys-from-stdin", group=sandbox.group)
            pipes: dict[str, Any] = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": errors,
                "bufsize": 0,
            }
            where: dict[str, Any] = {"env": sandbox.environment(), "cwd": sandbox.work, "pass_fds": descriptors}
            self._process = subprocess.Popen(command, **pipes, **where, start_new_session=True)  # noqa: S603  # no shell

    def __enter__(self) -> Self:
        try:
            self.run("run")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        # It has nothing that is worth an orderly end, and QEMU ends with it.
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def run(self, *command: str, key: str | None = None, pipe: str = "") -> bytes:
        """Run a command of guestfish and return what it prints, or a program of the shell that reads this.

        Raises:
            GuestError: it fails, or has not printed anything for long.
        """
        assert self._process.stdin  # noqa: S101  # for mypy
        line = " ".join([f"-{command[0]}", *map(_quoted, command[1:])])
        if pipe:  # a file, as a name in it may have the end of a line; bash, as dash knows no descriptor above 9
            self._pipe.write_bytes(os.fsencode(pipe))
            line += f" | bash {self._pipe}"
        if len(line) > _LONGEST:
            raise GuestError("a path is too long for guestfish")
        # If the process has ended, its errors tell why.
        with suppress(BrokenPipeError):
            lines = [line, *([] if key is None else [key]), "echo "]
            self._process.stdin.write(os.fsencode("\n".join(lines)) + self._mark)
        printed = self._printed()
        if told := self._told():
            raise GuestError("; ".join(told))
        return printed

    def script(self, text: str) -> tuple[bytes, list[str]]:
        """Run a script in the virtual machine; return what it prints, and the lines of its errors."""
        # libguestfs takes a script apart at blanks and quotes, and returns text of limited length: Base64 and files.
        encoded = base64.b64encode(os.fsencode(text)).decode()
        for start in range(0, len(encoded), _LONGEST // 2):
            piece = encoded[start : start + _LONGEST // 2]
            self.run("debug", "sh", f"echo {piece} | base64 -d >{'>' if start else ''}/run/script")
        self.run("debug", "sh", "sh /run/script >/run/out 2>/run/errors </dev/null; true")
        return self._file("/run/out"), os.fsdecode(self._file("/run/errors")).splitlines()

    def _file(self, path: str) -> bytes:
        pieces: list[bytes] = []
        while not pieces or len(pieces[-1]) == _PIECE:
            script = f"tail -c +{len(pieces) * _PIECE + 1} {path} | head -c {_PIECE} | base64 -w0"
            pieces.append(base64.b64decode(self.run("debug", "sh", script)))
        return b"".join(pieces)

    def _printed(self) -> bytes:
        assert self._process.stdout  # noqa: S101  # for mypy
        printed = bytearray()
        while not printed.endswith(self._mark):
            if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
                raise GuestError(f"the virtual machine has not answered for {_PATIENCE} s")
            if not (data := self._process.stdout.read(2**16)):
                raise GuestError("; ".join(["libguestfs has ended", *self._told()]))
            printed += data
        return bytes(printed[: -len(self._mark)])

    def _told(self) -> list[str]:
        """Return what was said on standard error since the last command."""
        return [_PREFIX.sub("", line) for line in os.fsdecode(self._errors.read()).splitlines()]


def _quoted(word: str) -> str:
    """Quote a word for guestfish, so that nothing in it means anything."""
    return '"' + "".join(chr(byte) if chr(byte) in _PLAIN else f"\\x{byte:02x}" for byte in os.fsencode(word)) + '"'
