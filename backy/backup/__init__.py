"""Putting an image in: a backup from its locks to the complete revision.

Import `backup.Backup`. `transfer` finds what a revision builds upon, and moves an image from a snapshot to a storage,
also for a conversion or a copy.
"""
