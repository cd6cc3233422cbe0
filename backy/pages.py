"""Compares chunks page by page, to find what a guest's writes changed."""

from backy.api import PAGE_SIZE

_SLICE = 16 * PAGE_SIZE
_ZERO_PAGE = bytes(PAGE_SIZE)


def differing_pages(new: bytes, old: bytes) -> list[int]:
    """Return the numbers of the pages of `new` that differ from the same pages of `old`.

    A page differs if `old` lacks it or has it in another length.
    """
    pages: list[int] = []
    # of two lengths, no page is the same from the one on that the shorter one cuts
    common = len(new) if len(new) == len(old) else min(len(new), len(old)) // PAGE_SIZE * PAGE_SIZE
    view = memoryview(old)
    # Most pages are equal, so slices of 64 KiB are compared first. `startswith` compares in place: slices of bytes are
    # copies, and to compare memoryviews takes thirty times as long.
    for start in range(0, common, _SLICE):
        stop = min(start + _SLICE, common)
        if not new.startswith(view[start:stop], start):
            offsets = range(start, stop, PAGE_SIZE)
            pages += [at // PAGE_SIZE for at in offsets if not new.startswith(view[at : min(at + PAGE_SIZE, stop)], at)]
    return pages + list(range(-(-common // PAGE_SIZE), -(-len(new) // PAGE_SIZE)))


def pages_with_data(content: bytes) -> list[int]:
    """Return the numbers of the pages of `content` that are not all zeroes."""
    # The first byte decides for most pages: this is seven times as fast as comparing every page with zeroes.
    return [
        page
        for page, first in enumerate(content[::PAGE_SIZE])
        if first or not _ZERO_PAGE.startswith(content[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])
    ]


def total(pages: list[int], length: int) -> int:
    """Return how many bytes the pages of a chunk of `length` bytes have, given ascending."""
    # only the last page of a chunk may be shorter
    return len(pages) * PAGE_SIZE - max((pages[-1] + 1) * PAGE_SIZE - length, 0) if pages else 0


def runs(pages: list[int], length: int) -> list[tuple[int, int]]:
    """Join the pages of a chunk of `length` bytes, given ascending, to runs of bytes: (offset, length)."""
    joined: list[tuple[int, int]] = []
    for page in pages:
        offset = page * PAGE_SIZE
        size = min(PAGE_SIZE, length - offset)
        if joined and sum(joined[-1]) == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        else:
            joined.append((offset, size))
    return joined
