import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.workloads import STEPS

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark") / "work"


@pytest.fixture(scope="module")
def printed(work: Path) -> str:
    steps = ",".join(step for step in STEPS if step != "together")
    ended = benchmark("--size", "64M", "--runs", 1, "--days", 2, "--verified", "--work", work, "--steps", steps)
    assert ended.returncode == 0, ended.stderr
    assert (work / f"{64 * 2**20}.img").stat().st_size == 64 * 2**20
    return ended.stdout


@pytest.fixture(scope="module")
def printed_of_many(work: Path) -> str:
    # fifteen backups for each kind of backy: one kind is enough here
    ended = benchmark("--size", "64M", "--runs", 1, "--work", work, "--steps", "full,second,together")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "step", ["Full backup", "Unchanged", "1 % changed", "0.1 % changed", "More such days", "Second image"]
)
def test_every_kind_of_backup_has_a_table_with_figures_of_backy(printed: str, step: str):
    table = printed.split(f"### {step}", 1)[1].split("###", 1)[0]
    assert "| backy | " in table
    assert "| backy, verified | " in table


@pytest.mark.parametrize("step", ["Restore the full backup to a new file", "Restore the full backup to a pipe"])
def test_every_kind_of_restore_has_a_table_with_figures_of_backy(printed: str, step: str):
    assert "| backy | " in printed.split(f"### {step}\n", 1)[1].split("###", 1)[0]


def test_scrubs_have_a_table_with_figures_of_backy_and_of_the_bare_work(printed: str):
    table = printed.split("### Read and check all", 1)[1].split("###", 1)[0]
    assert "| backy | " in table
    assert "| yardstick: unzstd, BLAKE3 | " in table


@pytest.mark.soak
def test_backups_at_once_have_a_rate_and_processor_time(printed_of_many: str):
    table = printed_of_many.split("### Full backups at the same time", 1)[1].split("###", 1)[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| backy |")
    ]
    assert [row[1] for row in rows] == ["1", "2", "4", "8"]
    assert rows[0][-1] == "1.00"
    assert all(float(cell) > 0 for row in rows for cell in row[2:])


@pytest.mark.soak
def test_the_summary_tells_of_a_second_machine_and_how_backups_scale(printed_of_many: str):
    table = printed_of_many.split("### In short", 1)[1].split("###", 1)[0]
    assert "| Second machine MiB | Scaling |" in table
    (row,) = [line for line in table.splitlines() if line.startswith("| backy |")]
    assert row.endswith(" with 8 |")


def test_figures_stand_beside_goals(printed: str):
    assert "| full backup: wall / read and compress | at most 1.25 | " in printed
    assert "| scrub: wall / read, decompress and hash | at most 1.25 | " in printed
    assert "| scattered: bytes added / bytes changed | at most 2 | " in printed


def test_a_step_that_is_not_there_is_refused_with_those_that_are():
    ended = benchmark("--steps", "full,sideways")
    assert ended.returncode == 2
    assert "there is no step 'sideways'; there are full, scrub" in ended.stderr


@pytest.mark.parametrize("size", ["4X", "G", "1M", ""])
def test_a_size_that_is_none_or_too_small_is_refused(size: str):
    assert benchmark("--size", size).returncode == 2
