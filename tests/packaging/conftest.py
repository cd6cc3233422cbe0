"""Wheels of all distributions, and environments of their own to install them into."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# their tests run in environments of their own, in which they are installed
collect_ignore = ["third_party_storage"]


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of all distributions, as `make wheels` makes it."""
    folder = tmp_path_factory.mktemp("wheels")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([ROOT / ".ci/wheels", folder], cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    return folder


@pytest.fixture(scope="session")
def wheels(wheelhouse: Path) -> dict[str, Path]:
    """The wheel of every distribution by the name of its package."""
    return {wheel.name.partition("-")[0]: wheel for wheel in sorted(wheelhouse.glob("*.whl"))}


@pytest.fixture(scope="session")
def packages(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages by name, as `make deb` makes them."""
    folder = tmp_path_factory.mktemp("debian")
    subprocess.run([sys.executable, ROOT / "docs/generate_man.py", folder / "man"], check=True)
    command = [sys.executable, ROOT / "packaging/debian/build.py", wheelhouse, folder / "man", folder / "packages"]
    subprocess.run(command, check=True)
    return {path.name.partition("_")[0]: path for path in (folder / "packages").glob("*.deb")}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave what takes minutes, as Debian is installed for it, to a soak."""
    return True if collection_path.name == "test_clean_debian.py" and not config.getoption("--soak") else None


@dataclass
class Environment:
    """A virtual environment and a folder to run in, which is not the checkout."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def pip(self, *arguments: object) -> None:
        """Run pip for this environment."""
        words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python)]
        done = subprocess.run([*words, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def backy(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the installed `backy`, which has no home and knows nothing of the one that is tested in place."""
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        return subprocess.run(
            [self.folder / "bin/backy", *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Environment:
    """An environment that has the core alone, its dependencies as it declares them; leave it as it is."""
    made = Environment(tmp_path_factory.mktemp("core"))
    venv.create(made.folder, with_pip=False)
    made.pip("install", "--quiet", "--no-compile", wheels["backy"])
    return made


@pytest.fixture(scope="session")
def environment(core: Environment, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Make an environment that has the core, and install into it what pip is told."""
    # what is imported later is compiled before it is copied
    assert core.backy("plugins", "--check").returncode == 0

    def make(*arguments: object) -> Environment:
        made = Environment(tmp_path_factory.mktemp("environment"))
        # pip and Python replace files, and never change them
        subprocess.run(["cp", "-a", "--link", f"{core.folder}/.", made.folder], check=True)
        program = made.folder / "bin/backy"
        text = program.read_text().replace(str(core.folder), str(made.folder))
        program.unlink()
        program.write_text(text)
        program.chmod(0o755)
        made.pip("install", "--quiet", "--no-compile", *arguments)
        return made

    return make
