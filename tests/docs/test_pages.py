"""Everything that a page of the documentation shows in a terminal is typed here, and says what the page says it does.

A block ```console holds commands, each after `$ `, and below each what it prints. All blocks of a page are run by one
shell in a temporary folder; a block inside of an HTML comment is run like the others and prepares what readers have
anyway. Every command must succeed; one that shall fail is shown as `$ command || echo "exit code $?"`. Where a page
shows nothing below a command, anything may be printed. `...` stands for any text, on a line of its own for any lines.
A command that takes several lines has `> ` before all but the first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster import Cluster
from tests.guest import FOLDER, Guest
from tests.virtual import Libvirt

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("changes/*.md"),
        *ROOT.glob("backy_*/README.md"),
    ]
)
CEPH_PAGES = ["docs/how-to/ceph.md", "docs/how-to/import.md", "docs/how-to/live-restore.md"]
BUCKET_PAGES = ["docs/examples/storages-s3/README.md"]
"""Pages whose commands tests/backy_storages_s3 runs, with a bucket."""
GUEST_PAGES = ["docs/how-to/lvm.md"]
"""Pages whose commands run in the appliance, and find an empty disk by the variable DISK."""
LIBVIRT_PAGES = ["docs/how-to/qemu.md"]
"""Pages whose commands find a libvirtd by its URI in the variable LIBVIRT."""
MOUNTING_PAGES = [
    "README.md",
    "docs/how-to/btrfs-and-xfs.md",
    "docs/how-to/incremental-image-files.md",
    "docs/how-to/restore.md",
]
"""Pages whose commands find a Ceph cluster with a pool `vms` by the variable CEPH_CONF."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLING = re.compile(r"python3 -m venv venv && export PATH=")
"""How pages begin that make an environment and install backy in it, by three commands."""
MARK = "=== end of command, exit code "


class Step(NamedTuple):
    """A command and what the page shows below it."""

    command: str
    expected: str


def steps(page: str) -> list[Step]:
    """Take the commands out of a page."""
    found = []
    for language, block in FENCE.findall(page):
        if language != "console":
            continue
        assert block.startswith("$ "), f"a block ```console begins with a command after '$ ':\n{block}"
        for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, more, expected = re.fullmatch(r"(.*\n)((?:> .*\n)*)((?:.*\n)*)", text).groups()
            found.append(Step(command + re.sub("^> ", "", more, flags=re.MULTILINE), expected))
    return found


def shown(expected: str, printed: str) -> bool:
    """Tell whether a page shows what was printed."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in squeezed(expected)
    )
    return not expected or re.fullmatch(pattern, "".join(f"{line}\n" for line in squeezed(printed))) is not None


def squeezed(text: str) -> list[str]:
    """Return the lines of a text, in which any number of spaces is as good as one."""
    return [re.sub(" +", " ", line.rstrip()) for line in text.rstrip().split("\n")]


def run(page: list[Step], folder: Path, **variables: str) -> list[str]:
    """Type all commands into one shell and return what each printed; fails at the first that fails."""
    environment = {
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
        "HOME": str(folder),
        "CHECKOUT": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        # the most dangerous crashes are tried in any case; more take longer and show the same
        "PYTEST_ADDOPTS": "--backy-crashes=1",
        # Python compiles what is imported; a page imports little of what it installs
        "PIP_COMPILE": "0",
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))},
        **variables,
    }
    done = subprocess.run(
        ["bash", "-c", script(page)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return printed_by(page, done.stdout)


def script(page: list[Step]) -> str:
    """Return a script for bash that marks the end of each command."""
    return "".join(f"{step.command}printf '\\n{MARK}%s\\n' $?\n" for step in page)


def printed_by(page: list[Step], output: str) -> list[str]:
    """Return what each command printed; fails at the first that failed."""
    printed = re.split(rf"\n{MARK}(\d+)\n", output)
    for step, text, code in zip(page, printed[::2], printed[1::2], strict=False):
        assert code == "0", f"$ {step.command}\n{text}\nended with exit code {code}"
    assert len(printed) == 2 * len(page) + 1, f"the shell ended early: {output}"
    return printed[:-1:2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Step], Path], None]:
    """Put an environment into a page's folder, as `installed(steps, folder)`: each is made once by the steps."""
    made: dict[tuple[Step, ...], Path] = {}

    def put(page: list[Step], folder: Path) -> None:
        if tuple(page) not in made:
            first = tmp_path_factory.mktemp("environment")
            # what is compiled is copied with it
            compare(page, run(page, first, PIP_COMPILE="1"))
            made[tuple(page)] = first / "venv"
        venv = made[tuple(page)]
        # thousands of files that pip and Python replace, but never change
        subprocess.run(["cp", "-a", "--link", venv, folder], check=True)
        for program in (folder / "venv" / "bin").iterdir():
            if not program.is_symlink():
                text, mode = program.read_text(), program.stat().st_mode
                program.unlink()
                program.write_text(text.replace(str(venv), str(folder / "venv")))
                program.chmod(mode)

    return put


@pytest.mark.parametrize(
    "name", [name for name in PAGES if name not in {*CEPH_PAGES, *BUCKET_PAGES, *GUEST_PAGES, *LIBVIRT_PAGES}]
)
def test_what_a_page_shows_in_a_terminal_is_what_happens(name: str, tmp_path: Path, installed: Callable) -> None:
    if name in MOUNTING_PAGES and os.geteuid() != 0:
        pytest.skip(f"NOT TESTED: {name} mounts file systems, which only root can do")
    page = steps((ROOT / name).read_text())
    if page and INSTALLING.match(page[0].command):
        installed(page[:3], tmp_path)
        page = page[3:]
        # false is what turns isolation off: https://github.com/pypa/pip/issues/5735
        known = {"PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin", "PIP_NO_BUILD_ISOLATION": "false"}
        compare(page, run(page, tmp_path, **known))
    else:
        compare(page, run(page, tmp_path))


@pytest.mark.parametrize("name", CEPH_PAGES)
def test_what_a_page_shows_of_a_cluster_is_what_happens(name: str, tmp_path: Path, ceph: Cluster) -> None:
    ceph.create_pool("vms")
    try:
        check(name, tmp_path, CEPH_CONF=str(ceph.configuration))
    finally:
        ceph.remove_pool("vms")


@pytest.mark.parametrize("name", GUEST_PAGES)
def test_what_a_page_shows_of_volumes_is_what_happens(name: str, booted: Guest) -> None:
    page = steps((ROOT / name).read_text())
    begin = f"set +e; exec 2>&1; cd {FOLDER}; DISK={booted.appliance.disk('three')}\n"
    ended = booted.shell(begin + script(page))
    booted.shell(f"rm -rf {FOLDER}/*; vgremove -qq -ff -y vg")
    compare(page, printed_by(page, ended.out))


@pytest.mark.parametrize("name", LIBVIRT_PAGES)
def test_what_a_page_shows_of_machines_is_what_happens(name: str, libvirt: Libvirt) -> None:
    with tempfile.TemporaryDirectory(prefix="backy-") as short:  # paths of sockets have to be
        check(name, Path(short), LIBVIRT=libvirt.uri)


def check(name: str, folder: Path, **variables: str) -> None:
    """Do what a page does, and compare."""
    page = steps((ROOT / name).read_text())
    compare(page, run(page, folder, **variables))


def compare(page: list[Step], found: list[str]) -> None:
    """Compare what a page shows with what was printed."""
    for step, printed in zip(page, found, strict=True):
        assert shown(step.expected, printed), f"$ {step.command}\nshould print\n{step.expected}\nbut prints\n{printed}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_commands_in_blocks_that_nobody_runs(name: str) -> None:
    languages = {language for language, _ in FENCE.findall((ROOT / name).read_text())}
    assert not languages & {"", "bash", "sh", "shell"}


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/") and name != "docs/index.md"])
def test_an_index_leads_to_every_page(name: str) -> None:
    page = ROOT / name
    # a folder of pages may have an index of its own, to which the index of all leads
    beside = page.parent / "index.md"
    index = beside if beside.exists() and beside != page else ROOT / "docs/index.md"
    assert f"]({page.relative_to(index.parent)})" in index.read_text()


def test_output_that_differs_from_the_page_is_noticed(tmp_path: Path) -> None:
    page = "```console\n$ x=one\n$ for y in a b\n> do echo $x $y; done\none a\none b\n```\n"
    page += "<!--\n```console\n$ seq 9; echo $x  $y\n1\n...\n9\no... b\n```\n-->\n"
    (assignment, loop, sequence) = steps(page)
    printed = run([assignment, loop, sequence], tmp_path)

    assert printed == ["", "one a\none b\n", "1\n2\n3\n4\n5\n6\n7\n8\n9\none b\n"]
    assert shown(loop.expected, printed[1])
    assert shown(sequence.expected, printed[2])
    assert not shown(loop.expected, printed[2])
    assert not shown("one\n", printed[1])


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit code 3"):
        run(steps("```console\n$ true\n$ (exit 3)\n$ true\n```\n"), tmp_path)
