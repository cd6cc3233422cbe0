from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backy.backup.backup import Backup
from backy.mount.open_images import ImageFile
from backy.mount.tree import Entry, Folder, Forest, Link, Tree, tag_folder
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Wrong, parse_tags
from backy.repository.running import begin


@pytest.fixture
def tree(repository: Repository) -> Tree:
    return Tree(repository)


def walk(tree: Tree | Forest, path: tuple[str, ...] = ()) -> dict[str, Entry]:
    """Return everything that can be found by listing folders."""
    entry = tree.find(list(path))
    assert entry is not None, path
    found = {"/".join(path): entry}
    if isinstance(entry, Folder):
        for name in entry.names():
            found |= walk(tree, (*path, name))
    return found


def names(tree: Tree | Forest, *path: str) -> list[str]:
    folder = tree.find(list(path))
    assert isinstance(folder, Folder)
    return folder.names()


def test_an_empty_repository_has_empty_folders(tree: Tree) -> None:
    assert [name for name, entry in walk(tree).items() if not isinstance(entry, Folder)] == []
    assert tree.find(["last"]) is None


def test_every_revision_is_found_by_id_date_and_tag(tree: Tree, repository: Repository, clock) -> None:
    old = Backup(repository, ("daily", "weekly"), clock=clock).run()
    new = Backup(repository, ("daily",), clock=clock).run()
    found = walk(tree)

    dated = [f"{revision.timestamp:%Y-%m-%dT%H%M%S.%fZ}-{revision.id}" for revision in (old, new)]
    assert {name: entry.revision for name, entry in found.items() if isinstance(entry, ImageFile)} == {
        old.id: old,
        new.id: new,
    }
    assert {name: entry.target for name, entry in found.items() if isinstance(entry, Link)} == {
        "last": new.id,
        f"by-date/{dated[0]}": f"../{old.id}",
        f"by-date/{dated[1]}": f"../{new.id}",
        "by-tag/daily/last": f"../../{new.id}",
        f"by-tag/daily/{dated[0]}": f"../../{old.id}",
        f"by-tag/daily/{dated[1]}": f"../../{new.id}",
        "by-tag/weekly/last": f"../../{old.id}",
        f"by-tag/weekly/{dated[0]}": f"../../{old.id}",
    }


def test_names_of_dates_are_in_utc(tree: Tree, repository: Repository) -> None:
    Backup(repository, (), clock=lambda: datetime(2026, 7, 1, 3, 4, 5, 678, tzinfo=UTC)).run()

    assert [name.partition("-0")[0] for name in names(tree, "by-date")] == ["2026"]
    assert names(tree, "by-date")[0].startswith("2026-07-01T030405.000678Z-")


def test_a_removed_revision_vanishes(tree: Tree, repository: Repository, clock) -> None:
    old = Backup(repository, ("daily",), clock=clock).run()
    new = Backup(repository, ("weekly",), clock=clock).run()
    repository.remove(new.id)

    assert tree.find([new.id]) is None
    assert tree.find(["last"]) == Link(old.id)
    assert names(tree, "by-tag") == ["daily"]
    assert tree.find(["by-tag", "weekly"]) is None
    assert tree.find(["by-tag", "weekly", "last"]) is None


def test_neither_incomplete_nor_damaged_revisions_are_shown(tree: Tree, repository: Repository, clock) -> None:
    begin(
        repository.directory,
        Birth(id="unfinished", seq=1, timestamp=clock(), trusted_time=clock(), birth_tags=("daily",)),
    )
    damaged = Backup(repository, ("daily",), clock=clock).run()
    repository.records.record_path(damaged.id).chmod(0o600)
    repository.records.record_path(damaged.id).write_text("{}")

    assert names(tree) == ["by-date", "by-tag"]
    assert names(tree, "by-tag") == []
    assert tree.find(["unfinished"]) is None
    assert tree.find([damaged.id]) is None


def test_beside_a_damaged_newest_record_nothing_is_called_the_last_one(
    tree: Tree, repository: Repository, clock
) -> None:
    old, new = (Backup(repository, ("daily",), clock=clock).run() for _ in range(2))
    assert tree.find(["last"]) == Link(new.id)
    for path in (repository.records.record_path(one.id) for one in (new, old)):
        content = path.read_bytes()
        path.chmod(0o600)
        path.write_text("{}")
        # the old one stops nobody
        shown = ["by-date", "by-tag", old.id] if path.stem == new.id else ["by-date", "by-tag", "last", new.id]
        assert names(tree) == shown
        assert (tree.find(["last"]) is None) is (path.stem == new.id)
        assert (tree.find(["by-tag", "daily", "last"]) is None) is (path.stem == new.id)
        assert ("last" in names(tree, "by-tag", "daily")) is (path.stem == old.id)
        path.write_bytes(content)


def test_no_name_but_its_id_leads_to_a_wrong_revision(tree: Tree, repository: Repository, clock, caplog) -> None:
    old, new = (Backup(repository, ("daily", tag), clock=clock).run() for tag in ("old", "new"))
    repository.records.write_state(new.changed(wrong=Wrong((0,), new.timestamp)))
    assert tree.find(["last"]) is tree.find(["by-tag", "daily", "last"]) is tree.find(["by-tag", "new", "last"]) is None
    assert f"'last' is not shown: revision {new.id} is wrong in 1 chunk" in caplog.text
    assert not [name for name in walk(tree) if name.endswith("last") and "old" not in name]
    assert isinstance(tree.find([new.id]), ImageFile)
    # the newest one with this tag is right
    assert tree.find(["by-tag", "old", "last"]) == Link(f"../../{old.id}")


def test_a_link_exists_under_its_own_name_only(tree: Tree, repository: Repository, clock) -> None:
    old = Backup(repository, ("daily",), clock=clock).run()
    name = names(tree, "by-date")[0]

    assert tree.find(["by-date", name]) == Link(f"../{old.id}")
    assert tree.find(["by-date", name.replace("2026", "2025")]) is None
    assert tree.find(["by-tag", "weekly", name]) is None
    assert tree.find(["by-tag", "daily", name, "more"]) is None
    assert tree.find(["by-date", name, "more"]) is None
    assert tree.find([old.id, "more"]) is None


@pytest.mark.parametrize("name", ["config", "..", "../vm/config", "last.rev", "x" * 300, "", "\udcff"])
def test_nothing_but_revisions_is_shown(tree: Tree, repository: Repository, name: str) -> None:
    Backup(repository, ("daily",)).run()

    assert tree.find([name]) is None
    assert tree.find(["by-date", name]) is None
    assert tree.find(["by-tag", "daily", name]) is None


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
@example([".", "..", "...", "/", "%", "%2F", "%2E", "a/b", "a%2Fb"])
def test_every_tag_has_a_folder_of_its_own_whose_name_can_be_one(tags: list[str]) -> None:
    folders = [tag_folder(tag) for tag in tags]

    assert len(set(folders)) == len(tags)
    assert not [folder for folder in folders if folder in {"", ".", ".."} or "/" in folder]


@pytest.mark.parametrize("tag", ["daily", "vor dem Unfall", "größer", "a.b"])
def test_ordinary_tags_are_their_own_folders(tag: str) -> None:
    assert tag_folder(tag) == tag


def test_a_tag_that_is_too_long_for_a_name_has_no_folder(tree: Tree, repository: Repository) -> None:
    Backup(repository, parse_tags(f"daily,{'ü' * 128}")).run()

    assert names(tree, "by-tag") == ["daily"]


def test_several_repositories_have_a_folder_each(repository: Repository, tmp_path: Path) -> None:
    revision = Backup(repository, ("daily",)).run()
    forest = Forest({"vm": repository.directory, "new": tmp_path / "new"})

    assert names(forest) == ["vm"]
    assert forest.find(["vm", "last"]) == Link(revision.id)
    file = forest.find(["vm", revision.id])
    assert isinstance(file, ImageFile)
    assert (file.repository.directory, file.revision) == (repository.directory, revision)
    assert forest.find(["new"]) is None
    assert forest.find(["other"]) is None


def test_a_repository_appears_with_its_job_s_first_backup_and_vanishes_with_its_folder(
    repository: Repository, tmp_path: Path
) -> None:
    forest = Forest({"vm": tmp_path / "later"})
    assert names(forest) == []
    repository.directory.rename(tmp_path / "later")
    assert names(forest) == ["vm"]
    assert forest.find(["vm"]) is not None
    (tmp_path / "later").rename(tmp_path / "away")
    assert names(forest) == []


def test_a_repository_that_can_not_be_read_is_told(repository: Repository, caplog) -> None:
    logging.getLogger("backy").propagate = True
    config = repository.directory / "config"
    config.chmod(0o600)
    config.write_text("format: 99")

    assert names(Forest({"vm": repository.directory})) == []
    assert "vm is not shown: " in caplog.text
