"""Damage: proves it, keeps the evidence, repairs it, and distrusts what it can not repair.

The use cases are in `damage` and `quarantine`; `seen` is for backups.
"""
