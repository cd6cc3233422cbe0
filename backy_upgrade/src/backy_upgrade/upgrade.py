"""Upgrades repositories: imports revisions one after the other, compares them, and lets the new ones take over."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage

import click
from humanize import naturaldelta, naturalsize

from backy.api import CHUNK_SIZE, BackyError, RevisionInfo
from backy.cli.progress import steps
from backy.durable import names_in
from backy.errors import DamageError, warned
from backy.importing import Original, distrust_revision, import_image, make_repository
from backy.reading import open_repository
from backy_upgrade.farm import Places
from backy_upgrade.images import OldImage, opened, space_of
from backy_upgrade.records import CONFIG, OldRevision, counted, load, old_revisions, sections

log = logging.getLogger(__name__)


@dataclass
class Upgrade:
    """The upgrade of one repository."""

    places: Places
    storage: str
    reclaim: bool = False
    """Whether what backy 2 has of a revision is removed as soon as the new one was compared."""
    _known: dict[bytes, bytes] = field(default_factory=dict)
    """The new ids of old chunks, as all revisions have them that were compared."""

    def run(self) -> str:
        """Upgrade the repository, or go on with that; return what was done, in a line.

        Raises:
            RepositoryBusyError: a command of backy 2 uses it.
            DamageError: it is upgraded, but for revisions that can not be read.
            BackyError, OSError: something failed; called again, it goes on.
        """
        with self.places.locked() as keep_restores_away:
            if self.reclaim:
                keep_restores_away()
            if not self.places.done.exists():
                self.places.link()
                self._begin()
                self._import()
            left = old_revisions(self.places.farm)
            # names change now, or did before
            keep_restores_away()
            self.places.switch()
        have = {info.id: info for info in open_repository(self.places.top).revisions()}
        text = f"{self.places.top.name}: {counted(have)} {'is' if len(have) == 1 else 'are'} upgraded"
        if gone := have.keys() - {one.id for one in left.complete}:
            text += f"; backy 2 has {counted(gone)} less now, which going back would lose"
        if wrong := [info.id for info in have.values() if info.trust == "wrong"]:
            text += f"; chunks of these can not be read, and are marked as wrong: {', '.join(wrong)}"
        if left.incomplete:
            text += f"; left out, as their backups did not end: {', '.join(left.incomplete)}"
        if reports := [*self.places.farm.glob("quarantine/*.report")]:
            text += f"; 'backy-2/quarantine' keeps its reports: {len(reports)}"
        if missing := [*(one.id for one in left.complete if one.id not in have), *left.unreadable]:
            raise DamageError(f"{text}; these can not be read, only 'backy-2' has them: {', '.join(missing)}")
        return text

    def _begin(self) -> None:
        """Make the new repository, unless it is there."""
        new, storage = self.places.new, {"storage": {"type": self.storage}}
        if (new / CONFIG).exists():
            return
        new.parent.mkdir(exist_ok=True)
        try:
            make_repository(new, {**sections(load(self.places.farm / CONFIG)), **storage})
        except BackyError as error:
            # first: where the storage can not work, that is all to tell
            make_repository(new, storage)
            log.warning("'source' and 'schedule' of %s are left out: %s", self.places.top / CONFIG, error)

    def _import(self) -> None:
        """Import all revisions, the oldest first, and distrust those that were distrusted."""
        last: tuple[bytes, RevisionInfo] | None = None
        have = {info.id: info for info in open_repository(self.places.new).revisions()}
        revisions = old_revisions(self.places.farm).complete
        needed = {revision.id for revision in revisions}
        # again, if that was interrupted, whatever is wanted now: records go first, and leave what nobody knows
        gone = have.keys() - needed
        if gone and (self.reclaim or any((self.places.top / name).exists() for name in gone)):
            self.places.reclaim(gone)
        for number, revision in enumerate(revisions, 1):
            click.echo(f"{self.places.top.name}: revision {number} of {len(revisions)}, {revision.id}", err=True)
            unread = warned(log, f"{revision.id} can not be read", (DamageError, FileNotFoundError))
            with unread, opened(self.places.farm, revision) as image:
                have[revision.id] = have.get(revision.id) or self._imported(image, revision, last)
                last = self._compared(image, have[revision.id])
                # of a damaged one, backy 2 may have more; a distrusted one is told as such by nothing else yet
                if self.reclaim and have[revision.id].trust != "wrong" and revision.trust != "distrusted":
                    needed.discard(revision.id)
                    self.places.reclaim(have.keys() - needed)
        # at the end: nothing is built upon a repository with doubtful ones
        for revision in revisions:
            if revision.trust == "distrusted" and revision.id in have and have[revision.id].trust != "distrusted":
                distrust_revision(self.places.new, revision.id)

    def _imported(self, image: OldImage, old: OldRevision, last: tuple[bytes, RevisionInfo] | None) -> RevisionInfo:
        if last and image.ids:
            image.before, image.base = last[0], f"backy-{last[1].id}"
        original = Original(old.id, old.timestamp, image.damaged, old.trust == "verified")
        # bars of its own for each: those of all would fill the terminal
        with steps() as show:
            return import_image(self.places.new, image, old.tags, show, original)

    def _compared(self, image: OldImage, info: RevisionInfo) -> tuple[bytes, RevisionInfo] | None:
        """Check what the import has compared; return what the next import can build upon.

        Each chunk was read from the old file again and compared when a revision had it first. That the others have the
        same one shows by the ids: one of backy 2 has one of backy 3, wherever it is.
        """
        done = info.verification
        if image.size != info.size or not done or (not image.ids and done.checked < done.total):
            raise BackyError(f"{info.id} was not compared with what backy 2 has")
        if not image.ids or info.trust == "wrong":
            return None
        with open_repository(self.places.new).image(info.id) as new:
            # a shorter last chunk may have been cut from a longer one
            for index in range(image.size // CHUNK_SIZE):
                now = new.chunk_id(index)
                if self._known.setdefault(image.chunk_id(index), now) != now:
                    raise BackyError(f"{info.id}: chunk {index} differs from what backy 2 has")
        return image.ids, info


def preview(places: Places, storage: str) -> str:
    """Return what an upgrade would do, and the space that it takes."""
    old, (space, more) = old_revisions(places.top), space_of(places.top, storage)
    sizes = [naturalsize(count, binary=True) for count in (space, more, space + more, disk_usage(places.top).free)]
    text = "{}: {} would be upgraded; the old files take {}, the new ones up to about {}, both {}; {} are free"
    return text.format(places.top.name, counted(old.complete), *sizes)


def one_by_one(configuration: Path, act: Callable[[Places], str]) -> str:
    """Call `act` with each repository of a scheduler, whatever becomes of the others; return a summary.

    Raises:
        BackyError: it failed with some, or the configuration has no base directory.
        OSError: there is no base directory.
    """
    content = load(configuration)
    settings = content.get("global") or content.get("config") or {}
    base = Path(str(settings["base-dir"] if "base-dir" in settings else "/srv/backy"))  # noqa: SIM401  # it may be a text
    every = [Places(base / name) for name in sorted(names_in(base))]
    found = [places for places in every if places.done.exists() or (places.top / CONFIG).exists()]
    click.echo(f"{len(found)} repositories: looking how much there is to do", err=True)
    # what there is to read tells how long each takes; what is upgraded has nothing
    sizes = [space_of(places.top, "chunked")[0] for places in found]
    started, failed = time.monotonic(), []
    for number, places in enumerate(found):
        done, left = sum(sizes[:number]), sum(sizes[number:])
        remaining = f", {naturaldelta((time.monotonic() - started) * left / done)} left" if done else ""
        click.echo(f"{number + 1} of {len(found)}: {places.top.name}{remaining}", err=True)
        try:
            click.echo(act(places))
        except (BackyError, OSError) as error:
            text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
            click.echo(f"Error: {places.top.name}: {text}", err=True)
            failed.append(places.top.name)
    if failed:
        raise BackyError(f"{len(failed)} of {len(found)} repositories failed: {', '.join(failed)}")
    return f"none of {len(found)} repositories failed"
