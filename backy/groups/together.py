"""The revisions of all disks of a machine of one instant."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from backy.api import Statistics, Verification
from backy.repository.revision import Revision


@dataclass(frozen=True)
class Together:
    """The revisions of all disks of a machine of one instant. They have the same id, number and tags."""

    members: dict[str, Revision]
    """The revisions by the names of the disks, in the order of the group."""

    @property
    def revision(self) -> Revision:
        """The revision that stands for all: the one most in doubt, with the worst and the sum of what they have."""
        each = [*self.members.values()]
        found = max(each, key=lambda one: (one.unread, bool(one.state.wrong), one.doubtful, bool(one.shrunk)))
        state = {
            # a pin of one disk holds all of them, from the time when that was pinned
            "tags": tuple(sorted({tag for one in each for tag in one.tags})),
            "pinned": max((one.state.pinned for one in each if one.state.pinned), default=None),
        }
        compared = [one.compared_since for one in each if one.compared_since]
        return msgspec.structs.replace(
            found,
            size=sum(one.size for one in each),
            consistency=next(
                w for w in ("none", "unknown", "crash", "guest") if w in {one.consistency for one in each}
            ),
            unfrozen=any(one.unfrozen for one in each),
            statistics=Statistics(**{key: sum(getattr(one.statistics, key) for one in each) for key in _FIGURES}),
            verifications=_verified([one.verification for one in each]),
            compared_since=min(compared) if len(compared) == len(each) else None,
            state=msgspec.structs.replace(found.state, **state),
        )

    @property
    def id(self) -> str:
        """The id."""
        return next(iter(self.members.values())).id

    @property
    def is_whole(self) -> bool:
        """Whether no disk is missing."""
        return all(one.group and self.members.keys() >= {*one.group.disks} for one in self.members.values())

    @property
    def lacking(self) -> str:
        """What is not there of it, for operators."""
        wanted = {name for one in self.members.values() if one.group for name in one.group.disks}
        missing = ", ".join(sorted(wanted - self.members.keys()))
        return f"of {self.id} not all disks are there: {missing} is missing, {', '.join(self.members)} is there"

    @property
    def forgotten(self) -> set[bool]:
        """Whether its revisions are in the trash: both if some are."""
        return {bool(one.state.forgotten) for one in self.members.values()}


_FIGURES = Statistics.__struct_fields__


def _verified(each: Sequence[Verification | None]) -> tuple[Verification, ...]:
    found = [one for one in each if one]
    if len(found) < len(each):
        return ()
    return (
        Verification(
            verifier=", ".join(dict.fromkeys(one.verifier for one in found)),
            checked=sum(one.checked for one in found),
            total=sum(one.total for one in found),
            out_of_time=any(one.out_of_time for one in found),
            remarks=tuple(remark for one in found for remark in one.remarks),
        ),
    )
