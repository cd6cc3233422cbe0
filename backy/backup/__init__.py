"""Putting an image in: a backup from its locks to the complete revision, and the conversion to another storage.

Import `backup.Backup` and `convert.Conversion`. `transfer` moves an image from a snapshot to a storage.
"""
