"""`backy upgrade --all`: the repositories of a scheduler, one after the other."""

import pytest

from tests.backy_upgrade.conftest import files_of, sums_of
from tests.backy_upgrade.test_variants import ONE
from tests.backy_upgrade.writer import CHUNK, Old

NAMES = ["chunked", "chunked-2.2", "cowfile", "cowfile-2.2"]


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "backy.conf"
    path.write_text(f"config: {{base-dir: {tmp_path}/base}}\nschedules: {{}}\njobs: {{}}\n")
    (tmp_path / "base/nothing").mkdir(parents=True)
    (tmp_path / "base/status").write_text("[]\n")
    return path


def test_all_are_upgraded_with_progress_and_a_summary(real, conf, backy):
    found = [real(name) for name in NAMES]
    for one in found:
        one.directory.rename(conf.parent / "base" / one.directory.name)

    planned = backy("upgrade", "--all", "-c", conf, "--dry-run")
    done = backy("upgrade", "--all", "-c", conf)
    again = backy("upgrade", "--all", "-c", conf)
    assert " left" not in again.err
    finished = backy("upgrade", "--all", "-c", conf, "--finish")
    backy("-b", conf.parent / "base/new", "init", "file", conf)
    assert backy("upgrade", "--all", "-c", conf, "--finish").code == 0

    assert planned.code == done.code == again.code == finished.code == 0, done.err
    assert planned.out.count("3 revisions would be upgraded") == 4
    *lines, summary = done.out.splitlines()
    assert lines == [f"{name}: 3 revisions are upgraded" for name in NAMES]
    assert summary == "none of 4 repositories failed"
    assert done.err.startswith("4 repositories: looking how much there is to do\n1 of 4: chunked\n")
    told = [line for line in done.err.splitlines() if " of 4: " in line]
    assert told[0] == "1 of 4: chunked"
    assert [line.endswith(" left") for line in told] == [False, True, True, True]
    assert again.out.splitlines()[:-1] == [f"{name} is a repository of backy 3" for name in NAMES]
    assert finished.out.splitlines()[:-1] == [f"{name}: what backy 2 had is removed" for name in NAMES]
    for one in found:
        assert sums_of(conf.parent / "base" / one.directory.name) == one.sums


def test_one_that_fails_does_not_stop_the_others(conf, backy):
    broken, sound = Old(conf.parent / "base/a"), Old(conf.parent / "base/b")
    for old in (broken, sound):
        old.add("revision-0", ONE[:CHUNK])
    broken.write("config", b"[")
    lost = Old(conf.parent / "base/c")
    lost.add("revision-0", ONE[:CHUNK])
    lost.write("revision-0", b"")
    before = files_of(broken.directory)

    done = backy("upgrade", "--all", "-c", conf)

    assert (done.code, done.out) == (1, "b: 1 revision is upgraded\n")
    assert f"Error: a: {broken.directory}/config is not YAML" in done.err
    assert done.err.splitlines()[-1] == "Error: 2 of 3 repositories failed: a, c"
    assert files_of(broken.directory) == before


@pytest.mark.parametrize("text", [None, "[", "global: {base-dir: /nowhere}\n"])
def test_a_configuration_that_leads_nowhere_is_told(text, tmp_path, backy):
    path = tmp_path / "backy.conf"
    if text is not None:
        path.write_text(text)

    done = backy("upgrade", "--all", "-c", path)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
