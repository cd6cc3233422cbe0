"""How far a drill has come, and how long it may go on."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Course:
    """What all levels of a drill share."""

    within: float
    """Seconds that all of it may take."""
    evidence: Callable[[bytes], object]
    """Takes what a person may want to see."""
    monotonic: Callable[[], float]
    """Returns seconds."""
    signs: dict[str, float] = field(default_factory=dict)
    """The seconds from the beginning to each sign of life."""

    def __post_init__(self) -> None:
        self._begin = self.monotonic()

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._begin + self.within - self.monotonic()

    def sign(self, name: str) -> None:
        """Note a sign of life."""
        self.signs[name] = round(self.monotonic() - self._begin, 1)
