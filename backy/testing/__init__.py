"""What tests of backy and of its plugins share: crashes of the machine, full disks and failing ones, without harm.

`backy.testing.recording` writes down every call by which a program changes a directory, and can let any of them fail.
`backy.testing.crashes` makes of such a recording what a power loss may have left at any instant.
`backy.testing.tree` is a directory as plain data, which both of them work on.
"""
