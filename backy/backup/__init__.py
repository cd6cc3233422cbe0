"""Putting an image in: one backup from its locks to the complete revision, and moving revisions to another storage.

The use cases are `backup.Backup` and `convert.Conversion`; `transfer` moves an image from a snapshot to a storage.
"""
