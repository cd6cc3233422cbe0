"""Writes an image to where it is wanted.

`restore.Restore` is the use case. `target` opens what is written to.
"""
