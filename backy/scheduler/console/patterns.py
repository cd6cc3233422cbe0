"""Matches regular expressions of untrusted users, in time that is linear in the length of the text."""

from __future__ import annotations

from collections.abc import Callable

from backy.errors import BackyError

LONGEST = 1000
"""Longest expression, in characters."""


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a text contains a match of `pattern`.

    The syntax is that of RE2, which is Python's without backreferences and lookaround.

    Raises:
        BackyError: `pattern` is not a valid expression.
    """
    import re2  # not Python's `re`: that can be kept busy for years by a few characters

    if len(pattern) > LONGEST:
        raise BackyError(f"a regular expression has at most {LONGEST} characters")
    # The library would write to standard error by itself.
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except UnicodeEncodeError as error:
        raise BackyError(f"{pattern!r} is no regular expression: it is no Unicode") from error
    except re2.error as error:
        cause = error.args[0].decode(errors="replace")
        raise BackyError(f"{pattern!r} is no regular expression: {cause}") from error
    return lambda text: compiled.search(text) is not None
