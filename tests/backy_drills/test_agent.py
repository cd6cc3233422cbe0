"""The talk with a guest's agent, whatever it answers."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy_drills.agent import Answer, Process, answers, talk
from backy_files.sandbox import GuestError


class Talk:
    """A talk, with what it says, the signs of life, and what the command has printed."""

    def __init__(self, command: str = "true", *, begun: bool = True) -> None:
        self.signs, self.shown, self.done = list[str](), list[bytes](), False
        self._talk = talk(command, self.signs.append, self.shown.append)
        self.said = next(self._talk)
        self.number = self.words()["arguments"]["id"]
        if begun:
            self.hear({"return": self.number}, before=b'{"torn": \xff')

    def words(self) -> dict:
        return json.loads(self.said.removeprefix(b"\xff"))

    def hear(self, answer: object, *, before: bytes = b"") -> None:
        for one in answers(b"", before + json.dumps(answer).encode() + b"\n")[1]:
            if not self.done:
                try:
                    self.said = self._talk.send(one)
                except StopIteration:
                    self.done = True


def encoded(printed: bytes) -> str:
    return base64.b64encode(printed).decode()


def test_a_command_is_run_by_the_shell() -> None:
    talk = Talk("echo it")
    assert talk.words()["arguments"] == {"path": "/bin/sh", "arg": ["-c", "echo it"], "capture-output": True}
    talk.hear({"return": {"pid": 7}})
    for _ in range(2):
        assert talk.words() == {"execute": "guest-exec-status", "arguments": {"pid": 7}}
        talk.hear({"return": {"exited": False}})
    talk.hear({"return": {"exited": True, "exitcode": 0, "out-data": encoded(b"it\n"), "err-data": encoded(b"!")}})

    assert (talk.done, talk.signs, talk.shown) == (True, ["agent", "command"], [b"it\n!"])


@pytest.mark.parametrize(("how", "told"), [({"exitcode": 3}, "3"), ({"signal": 9}, "signal 9")])
def test_a_command_that_fails_is_a_fault(how: dict[str, int], told: str) -> None:
    talk = Talk("echo it")
    talk.hear({"return": {"pid": 7}})
    with pytest.raises(GuestError, match=f"'echo it' fails in the guest with {told}: it"):
        talk.hear({"return": {"exited": True, "out-data": encoded(b"it\n"), **how}})
    assert (talk.signs, talk.shown) == (["agent"], [b"it\n"])


def test_an_agent_that_may_run_nothing_is_a_fault() -> None:
    with pytest.raises(GuestError, match="the guest agent runs no command: 'guest-exec has been disabled'"):
        Talk().hear({"error": {"class": "CommandNotFound", "desc": "guest-exec has been disabled"}})


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100000,
        b'{"return": ' * 100000,
        b'{"return": {"exited": true, "exitcode": "' + b"x" * 10000 + b'"}}',
        b'{"return": {"exited": true, "exitcode": 0, "out-data": "a"}}',
        b'{"return": {"pid": 1e999}}',
    ],
)
def test_what_no_agent_would_answer_is_no_answer(line: bytes) -> None:
    assert answers(b"", line + b"\n") == (b"", [])


def test_only_the_answer_to_its_own_question_is_a_sign_of_life() -> None:
    talk = Talk(begun=False)
    for answer in ({"return": talk.number + 1}, {"return": {}}, {"error": {"desc": "no"}}):
        talk.hear(answer)
        assert (talk.signs, talk.said) == ([], b"")


def test_answers_come_in_pieces_of_which_a_bounded_part_is_kept() -> None:
    rest, found = answers(b'{"return"', b': {"pid": 7}}\n{"ret')
    assert (rest, found) == (b'{"ret', [Answer(returned=Process(pid=7))])
    assert len(answers(b"x" * 2**25, b"y")[0]) == 2**25


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda one: (
        st.lists(one)
        | st.dictionaries(
            st.sampled_from(["return", "error", "desc", "pid", "exited", "exitcode", "out-data"]) | st.text(), one
        )
    ),
)


@given(said=st.lists(JSON), junk=st.binary(max_size=100))
def test_whatever_an_agent_answers_ends_with_a_fault_at_worst(said: list[object], junk: bytes) -> None:
    talk = Talk()
    with suppress(GuestError):
        for one in said:
            talk.hear(one, before=junk)
    assert talk.signs[:1] == ["agent"]
