"""Putting an image in: a backup from its locks to the complete revision.

Import `backup.Backup`. `transfer` moves an image from a snapshot to a storage, also for a conversion.
"""
