from __future__ import annotations

from pathlib import Path


def test_the_client_says_that_nobody_answers(backy, configuration: Path) -> None:
    result = backy("client", "-c", configuration, "status")
    assert result.code == 1
    assert result.err.startswith(f"Error: no scheduler answers at {configuration.parent}/.socket: No such file")


def test_the_client_needs_a_command(backy, configuration: Path) -> None:
    assert backy("client", "-c", configuration).code == 2
