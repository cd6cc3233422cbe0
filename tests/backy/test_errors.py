from __future__ import annotations

from backy.errors import BackyError, ChunkDamageError, ExitCode, RepositoryBusyError


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


def test_a_damaged_chunk_is_named_in_full() -> None:
    assert str(ChunkDamageError(b"\xab" * 32, "it is gone")) == f"chunk {'ab' * 32}: it is gone"
