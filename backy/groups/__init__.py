"""Disks of one machine: a directory whose `config` has `disks`, with a repository for each of them.

Import `group.opened`, `backup.backup`, the acts of `retention` and `restore.restore`.
"""
