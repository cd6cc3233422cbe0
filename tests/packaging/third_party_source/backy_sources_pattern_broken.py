"""A verifier whose author misspelt the hook, and a command that is none."""

from backy.hookspecs import hookimpl


@hookimpl
def backy_verifer(job: object) -> None: ...


command = "pattern"
