"""Upgrades one repository: imports its revisions one after the other, compares them, and lets the new one take over."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from backy.api import CHUNK_SIZE, BackyError, Progress, RevisionInfo
from backy.errors import DamageError
from backy.importing import Original, distrust_revision, import_image, make_repository
from backy.reading import open_repository
from backy_upgrade.farm import Places
from backy_upgrade.images import OldImage, opened
from backy_upgrade.records import CONFIG, OldRevision, load, old_revisions, sections

log = logging.getLogger(__name__)


@dataclass
class Upgrade:
    """The upgrade of one repository."""

    places: Places
    storage: str
    steps: Callable[[str, int], Progress]
    _known: dict[bytes, bytes] = field(default_factory=dict)
    """The new ids of old chunks, as all revisions have them that were compared."""

    def run(self) -> str:
        """Upgrade the repository, or go on with that; return what was done, in a line.

        Raises:
            RepositoryBusyError: a command of backy 2 uses it.
            DamageError: it is upgraded, but for revisions that can not be read.
            BackyError, OSError: something failed; called again, it goes on.
        """
        with self.places.locked():
            if not self.places.done.exists():
                self.places.link()
                self._begin()
                self._import()
            left = old_revisions(self.places.farm)
            self.places.switch()
        have = {info.id: info for info in open_repository(self.places.top).revisions()}
        text = f"{self.places.top.name}: {len(have)} revisions are upgraded"
        if wrong := [info.id for info in have.values() if info.trust == "wrong"]:
            text += f"; chunks of these can not be read, and are marked as wrong: {', '.join(wrong)}"
        if left.incomplete:
            text += f"; left out, as their backups did not end: {', '.join(left.incomplete)}"
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
            log.warning("'source' and 'schedule' of %s are left out: %s", self.places.top / CONFIG, error)
            make_repository(new, storage)

    def _import(self) -> None:
        """Import all revisions, the oldest first, and distrust those that were distrusted."""
        last: tuple[bytes, RevisionInfo] | None = None
        have = {info.id: info for info in open_repository(self.places.new).revisions()}
        revisions = old_revisions(self.places.farm).complete
        for number, revision in enumerate(revisions, 1):
            click.echo(f"{self.places.top.name}: revision {number} of {len(revisions)}, {revision.id}", err=True)
            try:
                with opened(self.places.farm, revision) as image:
                    have[revision.id] = have.get(revision.id) or self._imported(image, revision, last)
                    last = self._compared(image, have[revision.id])
            except (DamageError, FileNotFoundError) as error:
                log.warning("%s can not be read: %s", revision.id, error)
        # at the end: nothing is built upon a repository with doubtful ones
        for revision in revisions:
            if revision.trust == "distrusted" and revision.id in have and have[revision.id].trust != "distrusted":
                distrust_revision(self.places.new, revision.id)

    def _imported(self, image: OldImage, old: OldRevision, last: tuple[bytes, RevisionInfo] | None) -> RevisionInfo:
        if last and image.ids:
            image.before, image.base = last[0], f"backy-{last[1].id}"
        original = Original(old.id, old.timestamp, image.damaged, old.trust == "verified")
        return import_image(self.places.new, image, old.tags, self.steps, original)

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
