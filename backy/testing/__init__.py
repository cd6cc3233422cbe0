"""Helps to test backy and its plugins: contracts, fixtures, and simulated power losses, full disks and failing disks.

`backy.testing.recording` records every call that changes a directory, and can make any of them fail.
`backy.testing.crashes` computes from a recording what a power loss may leave at any instant.
`backy.testing.tree` holds a directory, and operations on it, as plain data, for both of them.
"""
