"""Disks of one machine: a directory whose `config` has `disks`, with a repository for each of them.

Import `group.opened`, and the functions of `acts` and `forget`; those of `forget` are for a single repository, too.
"""
