"""The verifier `full`: reads all of the source and all of the stored image."""

from __future__ import annotations

from contextlib import closing

from backy.api import Config, Image, MismatchHandler, Progress, Report, Snapshot, Verifier, chunk_count
from backy.config import BareConfig, typed
from backy.hookspecs import hookimpl
from backy.verifiers.comparison import chunks_with_data, compare


class FullVerifier:
    """Compares every chunk in which source or image has data; where both have holes there is nothing to read."""

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare all of both."""
        with closing(compare(snapshot, image, chunks_with_data(snapshot, image))) as compared:
            for length, wrong in compared:
                if wrong is not None:
                    mismatch(wrong)
                progress(length)
        total = chunk_count(snapshot.size)
        return Report("full", checked=total, total=total)


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier; it has no options."""
    typed(config, BareConfig, "config.verifier")
    return FullVerifier()
