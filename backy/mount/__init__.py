"""Revisions as files: a read-only file system through FUSE."""
