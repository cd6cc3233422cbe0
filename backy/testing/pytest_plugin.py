"""Fixtures for tests of plugins. pytest finds them by an entry point wherever backy is installed.

Tests of contracts have a time limit, so that a plugin that hangs is a failed test and not an endless run.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

# Every session of pytest on such a machine imports this module, so backy is imported only when a fixture is used.
if TYPE_CHECKING:
    from backy.testing.appliance.machine import Appliance
    from backy.testing.clock import Clock
    from backy.testing.memory import MemoryRepository
    from backy.testing.recording import Recording

Result = TypeVar("Result")
_HUNG: Final[list[threading.Thread]] = []
CRASHES = 12
CONTRACTS = ("source_contract", "storage_contract", "verifier_contract")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests of storages try more crashes, or fewer."""
    text = f"Let each test of the contract of storages try N crashes by chance, beside the worst ones [{CRASHES}]."
    parser.getgroup("backy").addoption("--backy-crashes", type=int, default=CRASHES, metavar="N", help=text)


def pytest_configure() -> None:
    """Make pytest explain failed asserts of the contracts."""
    # It does so by itself for test modules only.
    pytest.register_assert_rewrite(*(f"backy.testing.{name}" for name in CONTRACTS))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a test of a contract within the contract's `time_limit`."""
    limit = getattr(pyfuncitem.cls, "time_limit", None)
    test = pyfuncitem.obj
    if limit is not None and hasattr(pyfuncitem.cls, "backy_contract"):

        @functools.wraps(test)
        def limited(**fixtures: object) -> object:
            return within(limit, lambda: test(**fixtures))

        pyfuncitem.obj = limited
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the process last of all if a test was left hanging, with the status that pytest has found."""
    session.config.add_cleanup(lambda: leave(int(exitstatus)))


@pytest.fixture
def backy_clock() -> Clock:
    """A clock that advances by one hour at each call."""
    from backy.testing.clock import Clock

    return Clock()


@pytest.fixture
def backy_repository(tmp_path: Path) -> MemoryRepository:
    """An empty repository with an image in memory as its source: `backy_repository.memory.content = ...`."""
    from backy.testing.memory import MemoryRepository

    return MemoryRepository.make(tmp_path / "repository")


@pytest.fixture
def backy_image(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes an image file, as in `backy_image(1, None, 2, tail=9)`.

    Each number is the seed of a random chunk, None is a hole, and `tail` is the number of bytes behind them.
    """
    from backy.testing.images import write_image

    return lambda *chunks, tail=0, name="disk.img": write_image(tmp_path / name, *chunks, tail=tail)


@pytest.fixture
def backy_recording() -> Callable[..., AbstractContextManager[Recording]]:
    """A context that records every call that changes a folder; a `Fault` makes one of them fail."""
    from backy.testing.recording import record

    return record


@pytest.fixture(scope="session")
def backy_appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A guest of QEMU with the device mapper, nbd and rbd, and three empty disks of 8 GiB: `one`, `two`, `three`."""
    from backy.testing.appliance.machine import Appliance, missing

    if cause := missing():
        pytest.skip(f"NOT TESTED: what needs a guest of QEMU: {cause}")
    disks = dict.fromkeys(("one", "two", "three"), 8 * 2**30)
    with Appliance.running(tmp_path_factory.mktemp("appliance") / "shared", disks) as appliance:
        yield appliance


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """Call `function` in a thread of its own and return its result, or raise what it raises.

    Raises:
        pytest.fail.Exception: it did not end in `seconds`; the text shows where all threads are.
    """
    ended: Future[Result] = Future()

    def run() -> None:
        try:
            ended.set_result(function())
        except BaseException as error:  # noqa: BLE001  # also what pytest raises to skip or fail a test
            ended.set_exception(error)

    # No signal interrupts a library that waits for another thread. A daemon can be left behind.
    thread = threading.Thread(target=run, name="test", daemon=True)
    thread.start()
    if wait([ended], seconds).done:
        return ended.result()
    _HUNG.append(thread)
    pytest.fail(f"it hangs: it did not end in {seconds:g} seconds\n{stacks(thread)}")


def stacks(first: threading.Thread) -> str:
    """Return where `first` and all other threads are, as text."""
    frames = sys._current_frames()  # noqa: SLF001  # there is no other way to see them
    threads = sorted(threading.enumerate(), key=lambda thread: thread is not first)
    found = [(thread.name, frames[thread.ident]) for thread in threads if thread.ident in frames]
    return "\n".join(f"thread {name}:\n{''.join(traceback.format_stack(frame))}" for name, frame in found)


def leave(status: int) -> None:
    """End the process with `status` if a test was left hanging; else return."""
    # Python waits for the threads of pools at its end, and those that hang would keep it for ever.
    if any(thread.is_alive() for thread in _HUNG):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
