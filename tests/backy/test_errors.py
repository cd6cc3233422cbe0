from __future__ import annotations

import logging

import pytest

from backy.errors import (
    BackyError,
    ChunkDamageError,
    ConfigError,
    ExitCode,
    RepositoryBusyError,
    SourceBusyError,
    TargetError,
    is_full,
    raising,
    warned,
)


def test_exit_codes_are_a_contract() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "FULL": 28,
        "UNAVAILABLE": 69,
        "BUSY": 75,
    }


def test_an_error_fails_the_command_and_only_a_busy_repository_may_be_tried_again() -> None:
    assert BackyError("x").exit_code is ExitCode.FAILED
    assert RepositoryBusyError("x").exit_code is ExitCode.BUSY


def test_a_damaged_chunk_is_named_by_its_first_digits() -> None:
    assert str(ChunkDamageError(b"\xab" * 32, "it is gone")) == f"chunk {'ab' * 6}: it is gone"


def test_errors_of_the_system_and_of_sources_become_those_of_a_target() -> None:
    with (
        pytest.raises(TargetError, match=r"^target x: No space left on device$") as full,
        raising(TargetError, "target x"),
    ):
        raise OSError(28, "No space left on device")
    assert is_full(full.value)
    with pytest.raises(TargetError, match=r"^source y is in use$"), raising(TargetError, "target x"):
        raise SourceBusyError("source y is in use")
    with pytest.raises(ConfigError), raising(TargetError, "target x"):
        raise ConfigError("another one stays what it is")


def test_only_errors_of_sources_become_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with warned(logging.getLogger("job"), "it stays 100 %s"):
        raise SourceBusyError("source y is in use")
    assert caplog.record_tuples == [("job", logging.WARNING, "it stays 100 %s: source y is in use")]
    with pytest.raises(OSError, match=r"^gone$"), warned(logging.getLogger("job"), "it stays"):
        raise OSError("gone")
