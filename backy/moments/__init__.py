"""The moments that come along: what brings the writers of a job to rest while snapshots are taken.

Nothing is imported from here: they are plugins.
"""
