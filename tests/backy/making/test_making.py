from __future__ import annotations

from pathlib import Path

import pytest

from backy.errors import BackyError, ConfigError, PluginError, RepositoryError
from backy.making.making import make_repository
from backy.repository.repository import Repository


def test_the_source_says_what_its_argument_means(tmp_path: Path, image: Path) -> None:
    made = make_repository(tmp_path / "new", "file", str(image))

    config = Repository.open(tmp_path / "new").config
    assert config == made.config
    assert config.source == {"type": "file", "filename": str(image)}
    assert config.storage == {"type": "chunked"}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["fiel", "x"], PluginError, "no source 'fiel'"),
        (["file", ""], ConfigError, "is the path of an image file"),
        (["file", "x", "chonked"], PluginError, "no storage 'chonked'"),
    ],
)
def test_what_can_not_be_made_leaves_nothing(
    tmp_path: Path, arguments: list[str], error: type[BackyError], text: str
) -> None:
    with pytest.raises(error, match=text):
        make_repository(tmp_path / "new", *arguments)
    assert not (tmp_path / "new").exists()


def test_a_repository_stays_as_it_is(repository: Repository, tree) -> None:
    before = tree(repository.directory)

    with pytest.raises(RepositoryError, match="has a repository already"):
        make_repository(repository.directory, "file", "/elsewhere")
    assert tree(repository.directory) == before
