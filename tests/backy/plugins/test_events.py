from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backy import hookspecs
from backy.api import CHUNK_SIZE, Mismatch, Purged, Report, SourceError
from backy.backup.backup import Backup
from backy.config import Duration
from backy.copies.copies import pull
from backy.errors import BackyError, ChunkDamageError, PluginError, RevisionNotFoundError, VerificationError
from backy.exchange.offer import Order
from backy.groups.forget import expire, forget, undelete
from backy.integrity.damage import Judge, distrust
from backy.plugins.events import Events, RefusedError
from backy.plugins.loading import EVENTS
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.restore.restore import Restore
from backy.retention.purge import purge
from backy.retention.rules import Mark, write_mark
from backy.system.locking import BACKUP_LOCK, exclusive

HEAD = "import os, time\nfrom backy.api import *\nfrom backy.hookspecs import hookimpl\n"
TOLD = sorted(EVENTS - {"backy_console_commands", "backy_hook_config"})


def hook(name: str, body: str, arguments: str = "", mark: str = "@hookimpl") -> str:
    """Return the code of a hook."""
    return f"{HEAD}{mark}\ndef backy_{name}({arguments}): {body}\n"


def noting(path: Path, name: str, arguments: str) -> str:
    """Return the code of a hook that appends its arguments to a file, as one line of JSON."""
    values = ", ".join(f"str({one})" if one else "" for one in arguments.split(", "))
    return hook(name, f"open({str(path)!r}, 'a').write(__import__('json').dumps([{values}]) + '\\n')", arguments)


@pytest.fixture
def noted(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """What hooks have noted, as `noted()`."""
    path = tmp_path / "noted"
    return lambda: [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def observe(distribution: Callable[..., str], tmp_path: Path) -> Callable[[str, str], None]:
    """Install a plugin that notes the arguments of a hook, as `observe("backup_finished", "job, revision")`."""
    return lambda name, arguments: distribution(  # type: ignore[return-value]  # the name of the module is not needed
        f"acme-{name}", {"backy.hooks": [name]}, noting(tmp_path / "noted", name, arguments)
    )


class Suspicious:
    """A verifier that finds fault with two chunks."""

    def verify(self, snapshot, image, mismatch, progress, coverage) -> Report:
        for index in (0, 2):
            # what the source has still: otherwise it counts as written to meanwhile
            mismatch(Mismatch(index, "made up", snapshot.pread(index * CHUNK_SIZE, 8), b"found"))
        return Report("suspicious", range(2))


def test_hook_backy_backup_starting_is_asked_before_anything_is_created(
    observe: Callable, noted: Callable, repository: Repository
) -> None:
    observe("backup_starting", "tags")

    Backup(repository, ("daily", "weekly")).run()

    assert noted() == [["('daily', 'weekly')"]]


def test_hook_backy_backup_starting_may_veto(
    distribution: Callable[..., str], observe: Callable, noted: Callable, repository: Repository
) -> None:
    distribution("acme", {"backy.hooks": ["sentinel"]}, hook("backup_starting", "raise BackyError('no tape')"))
    observe("backup_failed", "error")

    with pytest.raises(RefusedError, match=r"^hook 'sentinel' refuses: no tape$"):
        Backup(repository, ("daily",)).run()

    assert repository.records.survey() == ([], [])
    assert noted() == [["hook 'sentinel' refuses: no tape"]]


FAILURES = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits": ("os._exit(3)", "ended with exit code 3"),
    "exits as if all were well": ("os._exit(0)", "ended with exit code 0"),
    "leaves": ("raise SystemExit(0)", "SystemExit: 0"),
    "is interrupted": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "crashes": ("os.kill(os.getpid(), 11)", "ended by signal 11"),
    "hangs": ("time.sleep(600)", "ended after 1 seconds, its limit"),
    "hangs with a child": ("os.system('sleep 600')", "ended after 1 seconds, its limit"),
}


@pytest.fixture(params=FAILURES)
def failing(request: pytest.FixtureRequest, distribution: Callable[..., str]) -> Callable[[str], str]:
    """Install a hook that fails, as `failing("backup_starting")`; returns how it fails."""
    body, cause = FAILURES[request.param]

    def install(name: str) -> str:
        distribution("acme", {"backy.hooks": ["failing"]}, hook(name, body))
        return f"hook 'failing' failed in backy_{name}: {cause}"

    return install


def installed(sections: dict | None = None, limit: float = 1) -> Events:
    """Return the installed plugins with a short time limit."""
    return Events.installed(sections, limit)


def test_a_veto_that_fails_allows_a_backup_unless_it_is_required(
    failing: Callable[[str], str], repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    cause = failing("backup_starting")

    Backup(repository, ("daily",), installed()).run()
    assert f"{cause}; nothing waits for its backy_backup_starting" in caplog.messages

    with pytest.raises(PluginError) as refused:
        Backup(repository, ("daily",), installed({"failing": {"required": True}})).run()
    assert str(refused.value) == f"{cause}; so it counts as if it refused"


def test_an_observer_that_fails_stops_neither_the_rest_nor_the_backup(
    failing: Callable[[str], str], observe: Callable, noted: Callable, repository: Repository, caplog
) -> None:
    cause = failing("backup_finished")
    observe("backup_finished", "revision")

    revision = Backup(repository, ("daily",), installed()).run()

    assert repository.records.history() == [revision]
    ((told,),) = noted()
    assert revision.id in told
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"{cause}; nothing depends on it"]


def test_hook_backy_backup_finished_is_told_of_the_complete_revision(
    observe: Callable, noted: Callable, repository: Repository
) -> None:
    observe("backup_finished", "job, revision, config")

    revision = Backup(
        repository, ("daily",), Events.installed({"backup_finished": {"url": "x", "required": True}})
    ).run()

    assert noted() == [[str(repository.job), str(revision.info), "{'url': 'x'}"]]


def test_observers_run_when_the_locks_are_released(distribution: Callable[..., str], repository: Repository) -> None:
    code = "from backy.system.locking import *\n" + hook(
        "backup_finished", "exclusive(job.directory, BACKUP_LOCK).__enter__(); (job.directory / 'free').touch()", "job"
    )
    distribution("acme", {"backy.hooks": ["backs-up-again"]}, code)

    Backup(repository, ("daily",)).run()

    assert (repository.directory / "free").exists()


def test_a_veto_runs_under_the_lock(distribution: Callable[..., str], repository: Repository) -> None:
    code = "from backy.system.locking import *\n" + hook(
        "backup_starting", "exclusive(job.directory, BACKUP_LOCK).__enter__()", "job"
    )
    distribution("acme", {"backy.hooks": ["veto"]}, code)

    with pytest.raises(RefusedError, match="refuses"):
        Backup(repository, ("daily",)).run()
    with exclusive(repository.directory, BACKUP_LOCK):
        pass


def test_hook_backy_backup_failed_is_told_the_line_that_users_see(
    observe: Callable, noted: Callable, repository: Repository, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe("backup_failed", "job, error")
    image.unlink()
    with pytest.raises(SourceError) as failed:
        Backup(repository, ("daily",)).run()
    monkeypatch.setattr(repository, "source", lambda: {}["x"])
    with pytest.raises(KeyError):
        Backup(repository, ("daily",)).run()

    assert noted() == [
        [str(repository.job), str(failed.value)],
        [str(repository.job), "internal error: KeyError: 'x'; 'backy -v' logs where"],
    ]


def test_hook_backy_verification_failed_is_told_how_many_chunks_differ(
    observe: Callable, noted: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "verifiers", lambda _default: [Suspicious()])
    observe("verification_failed", "job, revision_id, mismatches")

    with pytest.raises(VerificationError):
        Backup(repository, ("daily",)).run()

    ((job, revision, mismatches),) = noted()
    assert (job, mismatches) == (str(repository.job), "2")
    assert len(revision) > 10


def test_hook_backy_damage_found_is_told_by_a_scrub(
    observe: Callable, noted: Callable, repository: Repository, spoil: Callable, backy: Callable
) -> None:
    observe("damage_found", "revisions, chunks")
    observe("scrub_finished", "result")
    first = Backup(repository, ("daily",)).run()
    spoil(repository, first, 0)

    assert backy("-b", repository.directory, "scrub", "deep").code == 1
    found = noted()
    assert found[0] == [f"('{first.id}',)", "1"]
    assert "'mode': 'deep'" in found[1][0]


def test_hook_backy_damage_found_is_told_by_verify_and_by_the_look_at_suspects_after_a_backup(
    observe: Callable, noted: Callable, repository: Repository, spoil: Callable, backy: Callable
) -> None:
    observe("damage_found", "revisions, chunks")
    first = Backup(repository, ("daily",), Events()).run()
    spoil(repository, first, 0)

    assert backy("-b", repository.directory, "verify", "-r", "0").code == 1
    distrust(repository)
    with Events.installed() as events:
        Judge(repository, events=events).recheck()

    assert noted() == [[f"('{first.id}',)", "1"]] * 2


def test_hook_backy_damage_found_is_told_when_damage_fails_a_backup(
    observe: Callable, noted: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged:
        def verify(self, snapshot, image, mismatch, progress, coverage) -> Report:
            damage = ChunkDamageError(image.chunk_id(0), "made up")
            mismatch(Mismatch(0, "made up", None, None, damage))
            return Report("damaged", range(2))

    monkeypatch.setattr(repository, "verifiers", lambda _default: [Damaged()])
    observe("damage_found", "revisions, chunks")

    with pytest.raises(VerificationError):
        Backup(repository, ("daily",)).run()

    assert noted() == [["()", "1"]]


def test_hook_backy_scrub_finished_is_told_the_result(
    observe: Callable, noted: Callable, backy: Callable, repository: Repository
) -> None:
    observe("scrub_finished", "result")
    Backup(repository, ("daily",), Events()).run()

    printed = backy("-b", repository.directory, "scrub", "light", "--json").out

    assert noted() == [[str(json.loads(printed))]]


def test_hook_backy_damage_repaired_is_told_by_a_backup(
    observe: Callable, noted: Callable, repository: Repository, spoil: Callable
) -> None:
    observe("damage_repaired", "revisions, chunks")
    first = Backup(repository, ("daily",), Events()).run()
    spoil(repository, first, 0)

    Backup(repository, ("daily",)).run()

    assert noted() == [[f"('{first.id}',)", "1"]]


def test_hook_backy_restore_finished_is_told_the_target(
    observe: Callable, noted: Callable, backy: Callable, repository: Repository, tmp_path: Path
) -> None:
    observe("restore_finished", "revision, target")
    revision = Backup(repository, ("daily",), Events()).run()
    target = tmp_path / "restored"

    assert backy("-b", repository.directory, "restore", target).code == 0
    assert noted() == [[str(revision.info), str(target)]]


def test_hook_backy_restore_failed_is_told_the_line_that_users_see(
    observe: Callable, noted: Callable, repository: Repository, spoil: Callable, tmp_path: Path
) -> None:
    observe("restore_failed", "target, error")
    revision = Backup(repository, ("daily",), Events()).run()
    spoil(repository, revision, 0)

    with pytest.raises(BackyError) as failed:
        Restore(repository, "0", str(tmp_path / "restored")).run()

    assert noted() == [[str(tmp_path / "restored"), str(failed.value)]]


def test_hook_backy_restore_failed_is_told_of_a_revision_that_is_not_there(
    observe: Callable, noted: Callable, repository: Repository, tmp_path: Path
) -> None:
    observe("restore_failed", "revision, error")

    with pytest.raises(RevisionNotFoundError) as failed:
        Restore(repository, "0", str(tmp_path / "restored")).run()

    assert noted() == [["None", str(failed.value)]]


def test_hook_backy_purge_finished_is_told_the_result(
    observe: Callable, noted: Callable, repository: Repository
) -> None:
    observe("purge_finished", "result")
    Backup(repository, ("daily",), Events()).run()
    revision = repository.records.history()[0]
    forget(repository, [revision.id], "a test", force=True, events=Events())

    assert noted() == []
    result = purge(repository, everything=True)
    assert noted() == [[str(result)]]
    assert result.files > 0


def test_hook_backy_copy_finished_is_told_what_was_copied(
    observe: Callable, noted: Callable, repository: Repository, tmp_path: Path
) -> None:
    revision = Backup(repository, ("daily",), Events()).run()
    observe("copy_finished", "revisions, place, result")

    done = pull(tmp_path / "second/vm", str(repository.directory))

    result = {"bytes": done.bytes, "problems": []}
    assert noted() == [[str((revision.id,)), str(repository.directory), str(result)]]
    # nothing was copied
    pull(tmp_path / "second/vm", str(repository.directory))
    assert len(noted()) == 1


def test_hook_backy_copy_failed_is_told_why(
    observe: Callable, noted: Callable, repository: Repository, tmp_path: Path
) -> None:
    observe("copy_failed", "revisions, place, error")
    Backup(repository, ("daily",), Events()).run()

    with pytest.raises(BackyError) as failed:
        pull(tmp_path / "second/vm", str(repository.directory), Order(specifications=("manual:none",)))

    assert noted() == [[str(()), str(repository.directory), str(failed.value)]]


DRILL = """
from backy.api import DrillResult
from backy.hookspecs import hookimpl
class Drill:
    def run(self, disks, level, within, evidence): return DrillResult(reached=1, reason="no life" if level > 1 else "")
@hookimpl
def backy_drill(config): return Drill()
"""


def test_hook_backy_drill_finished_is_told_of_the_result(
    backy, distribution: Callable[..., str], observe: Callable, noted: Callable, repository: Repository
) -> None:
    distribution("acme-drill", {"backy.drills": ["lab"]}, DRILL)
    revision = Backup(repository, ("daily",), Events()).run()
    observe("drill_finished", "revision, level, result")
    assert backy("-b", repository.directory, "drill", "--type", "lab", "--level", "1").code == 0

    ((told, level, result),) = noted()
    assert (told, level) == (str(revision.info), "1")
    assert "'ok': True" in result


def test_hook_backy_drill_failed_is_told_why(
    backy, distribution: Callable[..., str], observe: Callable, noted: Callable, repository: Repository
) -> None:
    distribution("acme-drill", {"backy.drills": ["lab"]}, DRILL)
    revision = Backup(repository, ("daily",), Events()).run()
    observe("drill_failed", "revision, level, error")
    for options in ([], ["--type", "none"], ["-r", "manual:none"]):
        assert backy("-b", repository.directory, "drill", "--type", "lab", *options).code == 1

    told = noted()
    assert told[0] == [str(revision.info), "2", "no life"]
    assert [one[0] for one in told[1:]] == [str(revision.info), "None"]


def test_hook_backy_revision_removed_is_told_of_what_is_forgotten(
    observe: Callable, noted: Callable, repository: Repository
) -> None:
    observe("revision_removed", "job, revision")
    revision = Backup(repository, ("daily",), Events()).run()

    forget(repository, ["0"], "a test", force=True)

    assert noted() == [[str(repository.job), str(revision.info)]]


def test_hook_backy_revision_undeleted_is_told_of_what_comes_back(
    observe: Callable, noted: Callable, repository: Repository
) -> None:
    observe("revision_undeleted", "job, revision")
    revision = Backup(repository, ("daily",), Events()).run()
    forget(repository, ["0"], "a test", force=True, events=Events())

    back = undelete(repository, revision.id)

    assert noted() == [[str(repository.job), str(back.info)]]


def test_hook_backy_revision_purged_is_told_of_what_leaves_the_trash(
    observe: Callable, noted: Callable, repository: Repository
) -> None:
    observe("revision_purged", "job, revision")
    revision = Backup(repository, ("daily",), Events()).run()
    forget(repository, ["0"], "a test", force=True, events=Events())

    purge(repository)
    assert noted() == []
    purge(repository, everything=True)

    assert noted() == [[str(repository.job), str(revision.info)]]


def test_hook_backy_expiring_may_veto_what_is_forgotten(
    distribution: Callable[..., str], repository: Repository
) -> None:
    body = "raise BackyError(f'{revision.id} {tags} is evidence')"
    distribution("acme", {"backy.hooks": ["hold"]}, hook("expiring", body, "revision, tags"))
    revision = Backup(repository, ("daily",), Events()).run()

    with pytest.raises(RefusedError) as refused:
        forget(repository, ["0"], "a test", force=True)

    assert str(refused.value) == f"hook 'hold' refuses: {revision.id} ('daily',) is evidence"
    assert repository.records.history() == [revision]


def test_a_veto_of_expiring_that_fails_lets_nothing_go(failing: Callable[[str], str], repository: Repository) -> None:
    cause = failing("expiring")
    revision = Backup(repository, ("daily",), Events()).run()

    with pytest.raises(PluginError) as refused:
        forget(repository, ["0"], "a test", force=True, events=installed())

    assert str(refused.value) == f"{cause}; so it counts as if it refused"
    assert repository.records.history() == [revision]


@pytest.mark.parametrize("missing", ["not installed", "broken"])
def test_a_veto_of_expiring_that_is_missing_lets_nothing_go(
    missing: str, distribution: Callable[..., str], repository: Repository
) -> None:
    revision = Backup(repository, ("daily",), Events()).run()
    cause = "no hook 'hold' is installed, but 'hooks' has a section for it"
    if missing == "broken":
        distribution("acme", {"backy.hooks": ["hold"]}, "raise ImportError('no library')")
        cause = "hook 'hold' of acme 1.0 is broken: ImportError: no library"

    with pytest.raises(PluginError) as refused:
        forget(repository, ["0"], "a test", force=True, events=Events.installed({"hold": {}}))

    assert str(refused.value) == f"{cause}; so it counts as if it refused"
    assert repository.records.history() == [revision]


@pytest.fixture
def aged(repository: Repository, old_revisions: Callable, clock) -> Repository:
    """A repository of which two revisions are due to expire."""
    old_revisions(repository, {50: "daily", 40: "daily", 1: "daily"})
    repository.config.schedule = {"daily": ScheduledTag(interval=Duration(days=1), keep=1)}
    # all three were made since the last time, so that nothing waits
    write_mark(repository.directory, Mark(seq=0))
    return repository


def test_hook_backy_expiring_holds_back_one_revision_and_no_other(
    distribution: Callable[..., str], aged: Repository, clock
) -> None:
    code = hook("expiring", "revision.id == 'revision-0' and refuse()", "revision, tags")
    distribution("acme", {"backy.hooks": ["hold"]}, code + "def refuse(): raise BackyError('evidence')\n")

    expired, _ = expire(aged, clock)

    assert [expiry.revision.id for expiry in expired] == ["revision-1"]
    assert [revision.id for revision in aged.records.history()] == ["revision-0", "revision-2"]


def test_nothing_expires_if_one_answer_is_missing(distribution: Callable[..., str], aged: Repository, clock) -> None:
    body = "revision.id == 'revision-0' or os._exit(1)"
    distribution("acme", {"backy.hooks": ["hold"]}, hook("expiring", body, "revision, tags"))

    with pytest.raises(PluginError, match="ended with exit code 1; so it counts as if it refused"):
        expire(aged, clock)

    assert len(aged.records.history()) == 3


def test_plugins_are_called_in_the_order_that_they_ask_for(
    distribution: Callable[..., str], noted: Callable, tmp_path: Path, repository: Repository
) -> None:
    for name, mark in {
        "a": "@hookimpl(trylast=True)",
        "b": "@hookimpl",
        "c": "@hookimpl",
        "d": "@hookimpl(tryfirst=True)",
    }.items():
        body = f"open({str(tmp_path / 'noted')!r}, 'a').write('[\"{name}\"]\\n')"
        distribution(name, {"backy.hooks": [name]}, hook("backup_finished", body, mark=mark))

    Backup(repository, ("daily",)).run()

    assert noted() == [["d"], ["b"], ["c"], ["a"]]


def test_two_plugins_of_one_name_are_both_called(
    distribution: Callable[..., str], noted: Callable, tmp_path: Path, repository: Repository
) -> None:
    for name in ("acme", "zeta"):
        body = f"open({str(tmp_path / 'noted')!r}, 'a').write('[\"{name}\"]\\n')"
        distribution(name, {"backy.hooks": ["slack"]}, hook("backup_finished", body))

    Backup(repository, ("daily",)).run()

    assert noted() == [["acme"], ["zeta"]]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise ImportError('no pager')", "ImportError: no pager"),
        ("import os; os._exit(7)", "importing it ended with exit code 7"),
        ("import time; time.sleep(600)", "importing it ended after 3 seconds, its limit"),
    ],
)
def test_a_plugin_that_can_not_be_loaded_is_left_out_with_a_warning(  # noqa: PLR0913, PLR0917  # fixtures
    code: str, cause: str, distribution: Callable, observe: Callable, noted: Callable, repository: Repository, caplog
) -> None:
    distribution("aaaa", {"backy.hooks": ["broken"]}, code)
    observe("backup_finished", "job")

    with caplog.at_level(logging.WARNING):
        Backup(repository, ("daily",), installed(limit=3)).run()

    assert f"hook 'broken' of aaaa 1.0 is broken: {cause}" in caplog.messages
    assert noted() == [[str(repository.job)]]


def test_a_plugin_that_is_switched_off_is_not_called(
    observe: Callable, noted: Callable, backy: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe("backup_finished", "job")
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "backup_finished")

    assert backy("-b", repository.directory, "backup", "daily").err == ""
    assert noted() == []


def test_what_a_plugin_prints_is_no_output(
    distribution: Callable[..., str], backy: Callable, repository: Repository
) -> None:
    distribution("acme", {"backy.hooks": ["loud"]}, "print('import')\n" + hook("backup_finished", "print('event')"))

    result = backy("-b", repository.directory, "backup", "daily")

    assert (result.code, result.out.count("\n")) == (0, 1)
    assert result.err == "import\nevent\n"


SAMPLES = {
    "str": "a text",
    "int": 3,
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "tuple[str, ...]": ("one", "two"),
    "Mapping[str, Any]": {"a": [1, None]},
    "Purged": Purged(2, 100),
}


@pytest.mark.parametrize("name", TOLD)
def test_every_event_reaches_a_plugin_with_its_types(
    name: str, distribution: Callable[..., str], noted: Callable, tmp_path: Path, repository: Repository
) -> None:
    function = getattr(hookspecs, name)
    revision = Backup(repository, ("daily",), Events()).run().info
    values = {
        argument: {"Job": repository.job, "RevisionInfo": revision, "Config": {}, **SAMPLES}[
            kind.removesuffix(" | None")
        ]
        for argument, kind in function.__annotations__.items()
        if argument != "return"
    }
    distribution("acme", {"backy.hooks": ["x"]}, noting(tmp_path / "noted", name[6:], ", ".join(values)))

    with Events.installed() as events:
        events.tell(name, **{argument: value for argument, value in values.items() if argument != "config"})

    assert noted() == [[str(value) for value in values.values()]]


def test_hook_backy_hook_config_checks_the_section_of_its_plugin(distribution: Callable[..., str]) -> None:
    body = "typed(config, C, 'hooks.slack')"
    code = "import msgspec\nfrom backy.config import typed\n"
    code += "class C(msgspec.Struct, forbid_unknown_fields=True): url: str\n"
    distribution("acme", {"backy.hooks": ["slack"]}, code + hook("hook_config", body, "config"))

    def problems(section: dict) -> list[tuple[str, str]]:
        with Events.installed({"slack": section}) as events:
            return list(events.problems())

    assert problems({"url": "x", "required": True}) == []
    ((name, text),) = problems({"uri": "x"})
    assert (name, text.partition(":")[0]) == ("slack", "hooks.slack.uri")


def test_the_answer_to_a_call_that_is_interrupted_is_not_taken_for_the_next_one(
    distribution: Callable[..., str], repository: Repository, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    wait = hook("backup_starting", f"open({str(begun)!r}, 'w').close() or time.sleep(600)")
    fail = "@hookimpl\ndef backy_backup_failed(): raise BackyError('the pager is off')\n"
    distribution("acme", {"backy.hooks": ["pager"]}, wait + fail)
    # as soon as the call has begun, which opens the other end
    main = threading.get_ident()
    interrupting = threading.Thread(target=lambda: begun.read_bytes() or signal.pthread_kill(main, signal.SIGINT))

    with Events.installed() as events:
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            events.ask("backy_backup_starting", job=repository.job, tags=())
        interrupting.join()
        events.tell("backy_backup_failed", job=repository.job, error="interrupted")

    assert events.failures == ["hook 'pager' failed in backy_backup_failed: the pager is off"]


def test_a_call_that_hangs_ends_even_if_its_command_was_killed(
    distribution: Callable[..., str], repository: Repository, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    distribution("acme", {"backy.hooks": ["x"]}, hook("job_overdue", f"({HANG})", "text").format(begun=str(begun)))
    ask = f"""
from pathlib import Path
from backy.api import Job
from backy.plugins.events import Events
job = Job("vm", "id", Path({str(tmp_path)!r}))
with Events.installed(limit=2) as events:
    events.tell("backy_job_overdue", job=job, since={datetime(2026, 1, 1, tzinfo=UTC).isoformat()!r}, text="late")
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site-packages")}
    command = subprocess.Popen([sys.executable, "-c", ask], env=environment)
    hanging = os.pidfd_open(int(begun.read_text()))
    command.kill()
    command.wait()

    ended, _, _ = select.select([hanging], [], [], 60)
    os.close(hanging)
    assert ended


HANG = "open({begun!r}, 'w').write(str(os.getpid())), time.sleep(600)"


def test_the_process_of_the_plugins_ends_with_the_command(observe: Callable, repository: Repository) -> None:
    observe("backup_finished", "job")
    with Events.installed() as events:
        process = events._loaded()[0]._process.pid
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
