"""Tests that every source must pass. Authors of plugins subclass `SourceContract`, and pytest runs the tests."""

import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import yaml

from backy.api import CHUNK_SIZE, BackyError, ConfigError, Extent, Image, Job, Source, SourceError
from backy.backup.backup import Backup
from backy.plugins.discovery import Kind, advertised
from backy.plugins.events import Events
from backy.plugins.loading import call, load
from backy.repository.config import JobConfig, SourceSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.testing.images import difference

Needed = TypeVar("Needed")
# As opaque as real ids: a source must not expect an order or a form.
FIRST, SECOND, THIRD = "firstrevision", "secondrevision", "thirdrevision"


@dataclass(frozen=True)
class SourceUnderTest:
    """A source and the actions that tests can take on it. Tests that need an action that is None are skipped."""

    type: str
    """The name of the entry point."""
    argument: str
    """SOURCE of `backy init TYPE SOURCE`."""
    content: Callable[[], bytes]
    """Return the whole content of the source. A few chunks of 4 MiB and a shorter one test the most."""
    write: Callable[[int, bytes], None] | None = None
    """Write some bytes at an offset."""
    resize: Callable[[int], None] | None = None
    """Change the size to so many bytes. New bytes read as zeroes."""
    remove: Callable[[], None] | None = None
    """Remove the source."""
    frozen: bool = False
    """Whether a snapshot stays the same while the source is written to."""
    wrong_argument: str | None = None
    """A SOURCE that this type refuses."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the section `source` beyond those that `argument` makes."""


class SourceContract:
    """The tests. Subclass it with a name that begins with `Test`, and override the fixture `subject` only."""

    backy_contract = "source"
    time_limit = 300.0
    """Seconds after which a test fails because the plugin hangs. Override it if the plugin is that slow."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceUnderTest:
        """Return a new source and the actions on it. Override this."""
        pytest.fail("override the fixture 'subject', which returns a SourceUnderTest")

    @pytest.fixture
    def source(self, subject: SourceUnderTest, tmp_path: Path) -> Source:
        """Return the source as backy makes it."""
        return _made(subject, _config(subject), tmp_path)

    # the plugin -------------------------------------------------------------------------------------------------------

    def test_the_plugin_is_installed_and_keeps_the_contract(self, subject: SourceUnderTest) -> None:
        """An entry point of the group `backy.sources` names the plugin, and its hooks are those of a source."""
        load(Kind.SOURCE, subject.type)

    def test_the_configuration_can_be_written_and_read_again(self, subject: SourceUnderTest, tmp_path: Path) -> None:
        """The section is plain YAML without `type`, and makes the source after it was read back."""
        config = _config(subject)
        # The core adds `type`: the entry point has the name, not the plugin.
        assert "type" not in call(Kind.SOURCE, subject.type, "backy_source_config", argument=subject.argument)
        again = yaml.safe_load(yaml.safe_dump(config))
        assert again == config
        _made(subject, again, tmp_path)

    def test_a_key_that_nobody_knows_is_refused(self, subject: SourceUnderTest, tmp_path: Path) -> None:
        """A misspelt key is an error. A setting must not be ignored in silence."""
        with pytest.raises(ConfigError, match="no_such_key"):
            _made(subject, {**_config(subject), "no_such_key": 1}, tmp_path)

    def test_a_wrong_argument_is_refused_in_one_line(self, subject: SourceUnderTest) -> None:
        """`backy init` with a wrong SOURCE makes nothing and says which form is right."""
        wrong = _needed(subject.wrong_argument, "SOURCE that is wrong")
        with pytest.raises(ConfigError) as refused:
            call(Kind.SOURCE, subject.type, "backy_source_config", argument=wrong)
        assert len(str(refused.value).splitlines()) == 1

    def test_the_source_names_an_installed_verifier(self, source: Source) -> None:
        """Jobs that choose no verifier get this one."""
        assert source.verifier in advertised(Kind.VERIFIER)

    def test_a_source_that_is_gone_is_reported_in_one_line(self, subject: SourceUnderTest, source: Source) -> None:
        """Making the source does not fail; its snapshot raises SourceError."""
        _needed(subject.remove, "way to go away")()
        with pytest.raises(SourceError) as missing, source.snapshot(FIRST, None):
            pass
        assert len(str(missing.value).splitlines()) == 1

    # reading ----------------------------------------------------------------------------------------------------------

    def test_size_and_content_are_those_of_the_source(self, subject: SourceUnderTest, source: Source) -> None:
        """A snapshot returns the source's content, whether it is read by chunks or by extents."""
        content = subject.content()
        with source.snapshot(FIRST, None) as snapshot:
            assert snapshot.size == len(content)
            assert not difference(_read(snapshot), content)
            assert not difference(_by_extents(snapshot), content)

    def test_extents_are_in_order_and_leave_nothing_out(self, source: Source) -> None:
        """Each byte is in exactly one extent, from the first to the last."""
        with source.snapshot(FIRST, None) as snapshot:
            assert 0 not in _cover(snapshot.extents(), snapshot.size)

    def test_any_range_can_be_read(self, subject: SourceUnderTest, source: Source) -> None:
        """Ranges need no alignment, may be empty, and may span parts that the source stores separately."""
        content = subject.content()
        with source.snapshot(FIRST, None) as snapshot:
            for start, end in _ranges(len(content)):
                assert not difference(snapshot.pread(start, end - start), content[start:end]), (start, end)

    def test_a_range_beyond_the_end_is_an_error(self, source: Source) -> None:
        """`pread` never returns fewer bytes than it was asked for."""
        with source.snapshot(FIRST, None) as snapshot:
            for offset, length in ((snapshot.size, 1), (max(snapshot.size - 1, 0), 4096)):
                with pytest.raises(BackyError):
                    snapshot.pread(offset, length)

    def test_several_threads_read_at_once(self, subject: SourceUnderTest, source: Source) -> None:
        """Backups and verifiers read in parallel."""
        content = subject.content()
        starts, ends = zip(*_ranges(len(content), 100), strict=True)
        with source.snapshot(FIRST, None) as snapshot, ThreadPoolExecutor(8) as pool:
            read = pool.map(lambda start, end: snapshot.pread(start, end - start), starts, ends)
            for start, end, data in zip(starts, ends, read, strict=True):
                assert not difference(data, content[start:end]), (start, end)

    # changes ----------------------------------------------------------------------------------------------------------

    def test_what_changed_is_told(self, subject: SourceUnderTest, source: Source) -> None:
        """Every difference from the parent revision is in an extent of `changes`, unless that is None."""
        write = _needed(subject.write, "way to write to it")
        before = _backed_up(subject, source, FIRST, None)
        for offset in _places(len(before)):
            write(offset, b"changed")
        _check_changes(subject, source, before, FIRST)

    def test_what_did_not_change_twice_is_told_as_well(self, subject: SourceUnderTest, source: Source) -> None:
        """Changes are told from the parent revision, also if it is not the first one."""
        write = _needed(subject.write, "way to write to it")
        _backed_up(subject, source, FIRST, None)
        # Changed before the parent's backup, so it is no change since then; it may be told all the same.
        write(0, b"first")
        before = _backed_up(subject, source, SECOND, FIRST)
        write(len(before) // 2, b"second")
        _check_changes(subject, source, before, SECOND, THIRD)

    def test_a_revision_that_the_source_never_saw_is_no_base(self, subject: SourceUnderTest, source: Source) -> None:
        """With a parent that it does not know, the source returns None or all of the image as changes."""
        content = subject.content()
        # As after a repository was copied to another server, or a clone or bitmap was lost.
        with source.snapshot(SECOND, "neverseenrevision") as snapshot:
            changes = snapshot.changes()
            told = None if changes is None else list(changes)
        assert told is None or 0 not in _cover(told, len(content))

    def test_growing_and_shrinking_are_changes(self, subject: SourceUnderTest, source: Source) -> None:
        """A snapshot has the source's current size. New bytes at the end are changes."""
        resize = _needed(subject.resize, "way to resize it")
        before = _backed_up(subject, source, FIRST, None)
        resize(len(before) + CHUNK_SIZE + 4096)
        grown = _check_changes(subject, source, before, FIRST)
        resize(max(len(before) - 4096, 4096))
        _check_changes(subject, source, grown, SECOND, THIRD)

    def test_a_backup_that_failed_is_no_base(self, subject: SourceUnderTest, source: Source) -> None:
        """After a snapshot that was left with an exception, the next one still tells changes from the parent."""
        write = _needed(subject.write, "way to write to it")
        before = _backed_up(subject, source, FIRST, None)
        write(0, b"changed")
        with pytest.raises(ZeroDivisionError), source.snapshot(SECOND, FIRST):
            raise ZeroDivisionError
        _check_changes(subject, source, before, FIRST, THIRD)

    def test_a_snapshot_stays_what_it_is(self, subject: SourceUnderTest, source: Source) -> None:
        """The snapshot of a frozen source does not change when the source is written to."""
        write = _needed(subject.write, "way to write to it")
        _needed(subject.frozen or None, "state that stays while it is read")
        content = subject.content()
        with source.snapshot(FIRST, None) as snapshot:
            for offset in _places(len(content)):
                write(offset, b"too late")
            assert not difference(_read(snapshot), content)

    # as a whole -------------------------------------------------------------------------------------------------------

    def test_backups_read_back_what_the_source_held(self, subject: SourceUnderTest, tmp_path: Path) -> None:
        """Every one of three backups into a real repository is right, with changes between them."""
        source, verifier = SourceSection(_config(subject)), VerifierSections.from_plain("full")
        config = JobConfig(format=FORMAT, source=source, verifier=verifier)
        repository = Repository.initialize(tmp_path / "repository", config)
        images: list[bytes] = []
        for number in range(3):
            if number and subject.write:
                for offset in _places(len(images[-1])):
                    subject.write(offset, b"change %d" % number)
            if number == 2 and subject.resize:
                subject.resize(len(images[-1]) + 12288)
            images.append(subject.content())
            Backup(repository, ("test",), Events()).run()
        for content, revision in zip(images, repository.records.history(), strict=True):
            with repository.image(revision) as image:
                assert not difference(_read(image), content)


def _config(subject: SourceUnderTest) -> dict[str, Any]:
    config = call(Kind.SOURCE, subject.type, "backy_source_config", argument=subject.argument)
    return {"type": subject.type, **msgspec.to_builtins(config), **subject.options}


def _made(subject: SourceUnderTest, config: dict[str, Any], folder: Path) -> Source:
    job = Job("job", "contractjob", folder / "job")
    source: Source = call(Kind.SOURCE, subject.type, "backy_source", config=config, job=job)
    return source


def _backed_up(subject: SourceUnderTest, source: Source, revision_id: str, parent: str | None) -> bytes:
    """Read a snapshot as a complete backup does; return the content."""
    with source.snapshot(revision_id, parent) as snapshot:
        content = _read(snapshot)
    assert not difference(content, subject.content())
    return content


def _needed(value: Needed | None, what: str) -> Needed:
    """Return what a test needs of the subject; skip the test if the source does not have it."""
    if value is None:
        pytest.skip(f"nothing to try: this source has no {what}")  # CI accepts it: all that is there is tried
    return value


def _read(image: Image) -> bytes:
    """Read an image chunk by chunk, as a backup does."""
    return b"".join(image.pread(at, min(CHUNK_SIZE, image.size - at)) for at in range(0, image.size, CHUNK_SIZE))


def _by_extents(image: Image) -> bytes:
    """Read an image by its extents without its holes."""
    return b"".join(image.pread(e.offset, e.length) if e.data else bytes(e.length) for e in image.extents())


def _cover(extents: Iterable[Extent], size: int) -> bytes:
    """Return a byte for each byte of an image, 1 inside of extents; check that they are in order and inside."""
    covered = bytearray(size)
    end = 0
    for extent in extents:
        assert extent.length > 0, "no extent is empty"
        assert end <= extent.offset, "extents are in order and do not overlap"
        end = extent.end
        assert end <= size, "extents end with the image"
        covered[extent.offset : extent.end] = bytes([1]) * extent.length
    return bytes(covered)


def _places(size: int) -> list[int]:
    """Return offsets to write at: both ends, the middle, and around the edge of a chunk."""
    wanted = (0, CHUNK_SIZE - 4, CHUNK_SIZE + 4096, size // 2, size - 16)
    return sorted({place for place in wanted if 0 <= place <= size - 16})


def _ranges(size: int, count: int = 30) -> list[tuple[int, int]]:
    """Return ranges inside an image: its ends, the edges of chunks, and some by chance."""
    # The seed makes a failure repeatable.
    chance = random.Random(size)
    edges = [0, size, *(min(CHUNK_SIZE + step, size) for step in (-1, 0, 1))]
    points = [chance.choice(edges) if chance.random() < 0.3 else chance.randint(0, size) for _ in range(2 * count)]
    pairs = map(sorted, zip(points[::2], points[1::2], strict=True))
    return [(start, min(end, start + 2 * CHUNK_SIZE)) for start, end in pairs]


def _check_changes(
    subject: SourceUnderTest, source: Source, before: bytes, parent: str, revision_id: str = SECOND
) -> bytes:
    """Check that the changes from a parent cover all differences; return the current content."""
    now = subject.content()
    with source.snapshot(revision_id, parent) as snapshot:
        assert snapshot.size == len(now)
        changes = snapshot.changes()
        extents = None if changes is None else list(changes)
        assert not difference(_read(snapshot), now)
    if extents is not None:
        assert _cover(extents, len(now))[len(before) :].count(0) == 0, "what the image has grown by is a change"
        told = bytearray(before.ljust(len(now), b"\0")[: len(now)])
        for start, length, data in extents:
            told[start : start + length] = now[start : start + length] if data else bytes(length)
        assert not difference(told, now), f"changes since {parent} that the source does not tell of, or as holes"
    return now
