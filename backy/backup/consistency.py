"""What a backup's image is like: what the snapshot says of it, unless a second read proves otherwise."""

import logging
from collections.abc import Mapping
from typing import get_args

from backy.api import CHUNK_SIZE, AssessedSnapshot, Consistency, Mismatch, Snapshot
from backy.backup.transfer import Transferred
from backy.errors import PluginError, SourceError
from backy.image.chunkmap import entry

log = logging.getLogger(__name__)


class Assessment:
    """The consistency of a snapshot, as far as it was read."""

    def __init__(self, snapshot: Snapshot, *, accept_torn: bool, frozen: bool = False) -> None:
        self._snapshot = snapshot
        self._accept_torn = accept_torn
        self._frozen = frozen
        self._unsteady = False

    def consistency(self) -> Consistency:
        """Return what the image is like, in one of the words that there are."""
        said = self._snapshot.consistency if isinstance(self._snapshot, AssessedSnapshot) else "unknown"
        # a record with another word could not be read again
        if said not in get_args(Consistency):
            raise PluginError(f"the source calls its image '{said}'; it is one of {', '.join(get_args(Consistency))}")
        if self._unsteady:
            return "none"
        return "guest" if self._frozen and said == "crash" else said

    @property
    def certain(self) -> bool:
        """Whether the image is known to be of one instant, whatever reads it next."""
        return self.consistency() in {"guest", "crash"}

    def changed_since(self, mismatch: Mismatch) -> bool:
        """Return whether the source was written to, so that a chunk which differs from it is neither damaged nor a lie.

        Reads the chunk of the source once more.
        """
        said = self.consistency()
        if said == "none" or mismatch.expected is None:
            return said == "none"
        # whatever the source says of itself, two reads that differ are of no one instant
        again = self._snapshot.pread(mismatch.index * CHUNK_SIZE, len(mismatch.expected))
        # where nobody can tell, a change that is accepted is more likely than a defect of the source
        self._unsteady = again != mismatch.expected or (said == "unknown" and self._accept_torn)
        return self._unsteady

    def hidden(self, found: Mapping[int, bytes], made: Transferred) -> list[int]:
        """Return the indexes of the chunks of which the source hid a change: of one instant, and the same once more.

        Args:
            found: What a map has for chunks of the source that differ from those in `made`, by index.
            made: What was stored by what the source told.
        """
        length = made.chunks.length
        hidden = [index for index in found if not made.seen[index]]
        if self.certain:
            hidden = [one for one in hidden if entry(self._snapshot.pread(one * CHUNK_SIZE, length(one))) == found[one]]
        # asked once more: what was written to while it was read is no lie, and of others nobody can tell
        if hidden and not self.certain:
            log.warning("earlier revisions may be wrong, too: nobody can tell, as the source may have been written to")
            return []
        return hidden

    def require_one_instant(self) -> Consistency:
        """Return the consistency; raise SourceError if it is `none`, unless such images are accepted."""
        said = self.consistency()
        if said == "none" and not self._accept_torn:
            advice = getattr(self._snapshot, "advice", "stop what writes to it during the backup")
            raise SourceError(
                f"the source was written to while it was read, so its image is of no one instant: {advice}; "
                "'torn: accept' in the section 'source' keeps such images"
            )
        return said
