"""Repositories that backy 2 made, and what is in them."""

import tarfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from backy.reading import open_repository

FIXTURES = Path(__file__).parent / "fixtures"
"""The repositories that the real backy 2.2 and 2.5.3 made, with sums."""


class Real(NamedTuple):
    """A repository of a real backy 2."""

    directory: Path
    sums: list[str]
    """The SHA-256 of its images, the oldest first."""


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixtures")
    for path in FIXTURES.glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="tar")  # ours
    return folder


@pytest.fixture
def real(unpacked: Path, tmp_path: Path) -> Callable[[str], Real]:
    """Copy a repository of a real backy 2, as `real(name)`."""
    # holes and modes as well; shutil makes holes data
    import subprocess

    def copied(name: str) -> Real:
        subprocess.run(["cp", "-a", unpacked / name, tmp_path], check=True)
        lines = (unpacked / f"{name}.sums").read_text().splitlines()
        return Real(tmp_path / name, [line.split()[0] for line in lines])

    return copied


def sums_of(directory: Path) -> list[str]:
    """Return the SHA-256 of all images of a repository of backy 3, the oldest first."""
    repository = open_repository(directory)
    return [sha256(content).hexdigest() for content in images_of(repository)]


def images_of(repository) -> Iterator[bytes]:
    """Yield the content of each image, the oldest first."""
    for revision in repository.revisions():
        with repository.image(revision.id) as image:
            yield image.pread(0, image.size)


def files_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files below a folder, but for locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in paths}
