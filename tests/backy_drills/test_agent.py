"""The talk with a guest's agent, whatever it answers."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy_drills.agent import Agent


def said(agent: Agent) -> dict:
    return json.loads(agent.send.removeprefix(b"\xff"))


def answer(agent: Agent, value: object, *, before: bytes = b"") -> list[str]:
    return [*agent.take(before + json.dumps(value).encode() + b"\n")]


def begun(command: str = "true") -> Agent:
    agent = Agent(command)
    assert answer(agent, {"return": said(agent)["arguments"]["id"]}, before=b'{"torn": \xff') == ["agent"]
    return agent


@pytest.mark.parametrize(("code", "signs"), [(0, ["command"]), (3, [])])
def test_a_command_is_run_by_the_shell(code: int, signs: list[str]) -> None:
    agent = begun("echo it")
    assert said(agent)["arguments"] == {"path": "/bin/sh", "arg": ["-c", "echo it"], "capture-output": True}
    assert answer(agent, {"return": {"pid": 7}}) == []
    agent.ask_again()
    assert said(agent) == {"execute": "guest-exec-status", "arguments": {"pid": 7}}
    assert answer(agent, {"return": {"exited": False}}) == []
    out = base64.b64encode(b"it\n").decode()

    assert answer(agent, {"return": {"exited": True, "exitcode": code, "out-data": out}}) == signs
    assert (agent.done, agent.told) == (True, b"it\n")
    assert agent.fault == ("" if code == 0 else "'echo it' fails in the guest with 3: it")


def test_an_agent_that_may_run_nothing_is_a_fault() -> None:
    agent = begun()
    answer(agent, {"error": {"class": "CommandNotFound", "desc": "guest-exec has been disabled"}})

    assert agent.done
    assert "the guest agent runs no command" in agent.fault
    assert "disabled" in agent.fault


def test_an_output_that_is_no_base64_is_none() -> None:
    agent = begun()
    assert answer(agent, {"return": {"exited": True, "exitcode": 0, "out-data": "a"}}) == ["command"]
    assert agent.told == b""


def test_only_the_answer_to_its_own_question_is_a_sign_of_life() -> None:
    agent = Agent("true")
    assert answer(agent, {"return": 1}) == []
    assert answer(agent, {"return": {}}) == []
    assert not agent.done


def test_without_a_command_nothing_is_asked_and_no_answer_counts() -> None:
    agent = Agent(None)
    assert (agent.done, agent.send) == (True, b"")
    assert answer(agent, {"return": 0}) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda one: (
        st.lists(one)
        | st.dictionaries(
            st.sampled_from(["return", "error", "pid", "exited", "exitcode", "out-data"]) | st.text(), one
        )
    ),
)


@given(answers=st.lists(JSON), junk=st.binary(max_size=100))
def test_whatever_an_agent_answers_is_no_error(answers: list[object], junk: bytes) -> None:
    agent = begun()
    for one in answers:
        answer(agent, one, before=junk)
        agent.ask_again()
