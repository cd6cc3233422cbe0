"""Shows revisions as files: a read-only file system by FUSE, and an NBD server on top of it.

`live` shows a revision to a place that restores it while it is used.
"""
