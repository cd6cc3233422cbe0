"""Regular expressions of strangers: matched in time that grows with the text alone, whatever the expression."""

from __future__ import annotations

from collections.abc import Callable

from backy.errors import BackyError

LONGEST = 1000
"""Characters of an expression."""


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a text has a match of `pattern` anywhere.

    The syntax is that of RE2: what Python has, but for references back and looking around.

    Raises:
        BackyError: it is no such expression.
    """
    import re2

    if len(pattern) > LONGEST:
        raise BackyError(f"a regular expression has at most {LONGEST} characters")
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
