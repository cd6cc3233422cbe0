"""The verifier `full`: reads all of the source and all of the stored image."""

from backy.api import Config, Coverage, Image, MismatchHandler, Progress, Report, Snapshot, Verifier, chunk_count
from backy.comparing import chunks_with_data, compare_all
from backy.config import BareConfig, typed
from backy.hookspecs import hookimpl


class FullVerifier:
    """Compares every chunk in which source or image has data. Holes of both are not read."""

    def verify(
        self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress, coverage: Coverage
    ) -> Report:
        """Compare all chunks, in the order of the image."""
        compare_all(snapshot, image, coverage.left(chunks_with_data(snapshot, image)), mismatch, progress)
        # Holes of both count as compared: they are known to be equal.
        return Report("full", range(chunk_count(snapshot.size)))


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier, which has no options."""
    typed(config, BareConfig, "config.verifier")
    return FullVerifier()
