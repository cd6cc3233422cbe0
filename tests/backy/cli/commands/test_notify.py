"""`backy notify --test` sends a test message, and says what the mailer answers."""

from __future__ import annotations

from pathlib import Path


def test_the_command_says_what_the_mailer_answers(tmp_path: Path, backy) -> None:
    path, program = tmp_path / "backy.conf", tmp_path / "sendmail"

    def write(section: str, command: str = "") -> None:
        path.write_text(f"global: {section}\nschedules: {{}}\njobs: {{}}\n")
        program.write_text(f"#!/bin/sh\ncat > {tmp_path}/mail\n{command}\n")
        program.chmod(0o700)

    write("{}")
    nobody = backy("notify", "--test", "-c", path)
    assert (nobody.code, "has no 'notify' in 'global'" in nobody.err) == (1, True)
    section = f"{{notify: {{to: root, program: {program}}}}}"
    write(section, "echo queued as 1")
    done = backy("notify", "--test", "-c", path)
    assert (done.code, done.out) == (0, f"{program} took it, and printed queued as 1\n")
    assert "a test" in (tmp_path / "mail").read_text()
    write(section, "echo no such user; exit 67")
    failed = backy("notify", "--test", "-c", path)
    assert (failed.code, "exit code 67 and printed: no such user" in failed.err) == (1, True)
    assert backy("notify", "-c", path).code == 2
