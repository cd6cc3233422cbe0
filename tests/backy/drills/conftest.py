"""A machine with several disks."""

from tests.backy.groups.conftest import machine

__all__ = ["machine"]
