"""Nothing that a repository of strangers says gets to a terminal or a log as a control character."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from backy.backup.backup import Backup
from backy.cli.logs import by_a_thread, set_up_logging
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository import sealed
from backy.repository.repository import Repository
from backy.terminal.plain import printable
from backy.testing.clock import Clock

# C0 with a line that is none, C1, and marks of direction
EVIL = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\x85\x7f\r\nERROR all is lost"
SHOWN = r"\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\x85\x7f\r\nERROR all is lost"
COMMANDS = [
    *(["status"], ["status", "--json"], ["status", "--trash"], ["why"], ["plan", "restore"], ["find"]),
    *(
        ["diff", "1", "0"],
        ["diff", "-r", "1"],
        ["reports", "list"],
        ["reports", "list", "--json"],
        ["reports", "show", "e"],
    ),
    *(["tags", "add", "-f", "-r", "0", "more"], ["scrub", "light"], ["verify"], ["expire"], ["audit"], ["backup", "x"]),
    *(["restore", "-r", f"no{EVIL}", "-"], ["forget", "-r", "0"], ["purge"], ["mount", EVIL], [EVIL]),
]


@pytest.fixture
def received(repository: Repository, clock: Clock) -> Repository:
    """A repository that says such things wherever it can."""
    for _ in range(2):
        made = Backup(repository, ("test",), clock=clock).run()
    records = repository.records
    record = msgspec.structs.replace(made.record, birth_tags=(EVIL,), snapshot=EVIL, parent=EVIL)
    state = msgspec.structs.replace(made.state, tags=(EVIL, "test"))
    for path, document in ((records.record_path(made.id), record), (records.state_path(made.id), state)):
        path.unlink()
        path.write_bytes(sealed.encode(document))
    (repository.directory / f"{EVIL.replace('/', '')}.rev").write_text(EVIL)
    (repository.directory / "damaged0.rev").write_text(EVIL)
    quarantine.keep(repository.directory, Finding(name="evil", timestamp=clock(), cause=EVIL), None, None)
    return repository


def is_plain(text: str) -> bool:
    return not [one for one in text if not one.isprintable() and one != "\n"]


@pytest.mark.parametrize("logged", [False, True], ids=["terminal", "log"])
def test_no_command_passes_on_a_control_character(
    received: Repository, backy: Callable, tmp_path, logged: bool
) -> None:
    log = tmp_path / "log"
    options = ["-v", "-l", log] if logged else []
    for words in COMMANDS:
        done = backy("-b", received.directory, *options, *words)
        assert is_plain(done.out), (words, done.out)
        assert is_plain(done.err), (words, done.err)
        # but for what the caller wrote
        assert "\nERROR" not in done.out + done.err or words == [EVIL], words
    if logged:
        assert is_plain(log.read_text())
        assert "\nERROR" not in log.read_text()


@pytest.mark.parametrize("place", ["a key", "a type", "a value", "no YAML"])
def test_no_config_passes_on_a_control_character(received: Repository, backy: Callable, place: str) -> None:
    config = yaml.safe_load((received.directory / "config").read_text())
    if place == "a key":
        config["source"][EVIL] = 1
    elif place == "a type":
        config["source"]["type"] = EVIL
    elif place == "a value":
        config["schedule"] = {EVIL: {"interval": EVIL, "keep": 1}}
    (received.directory / "config").write_text(EVIL if place == "no YAML" else yaml.safe_dump(config))
    done = backy("-b", received.directory, "backup", "test")
    assert done.code == 1
    assert is_plain(done.err)
    assert done.err.count("\n") == 1


def test_what_is_written_out_can_be_told_and_json_has_it_as_it_is(received: Repository, backy: Callable) -> None:
    assert SHOWN in backy("-b", received.directory, "status").out
    newest = json.loads(backy("-b", received.directory, "status", "--json").out)["revisions"][-1]
    assert EVIL in newest["tags"]


def test_a_log_keeps_the_lines_of_a_traceback_and_no_other(tmp_path: Path) -> None:
    set_up_logging(tmp_path / "log", verbose=False)
    with by_a_thread():
        try:
            [].index(EVIL)
        except ValueError:
            logging.getLogger("test").exception("%s", EVIL)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].endswith(f"ERROR {SHOWN}")
    assert lines[1] == "Traceback (most recent call last):"
    assert is_plain("\n".join(lines))


@pytest.mark.parametrize("text", ["", "plain", "ümläut 日本語 🐈", "a\\b"])
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "code", [*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200E, 0x202A, 0x202E, 0x2066, 0x2069, 0xDC80]
)
def test_every_control_character_is_written_out(code: int) -> None:
    shown = printable(f"a{chr(code)}b")
    assert shown.isprintable()
    assert shown[0] + shown[-1] == "ab"


def test_the_ends_of_lines_stay_where_there_are_lines() -> None:
    assert printable("one\n\x1btwo\n", lines=True) == "one\n\\x1btwo\n"
    assert printable("one\ntwo") == "one\\ntwo"
