"""Damage: finds it, keeps the evidence, repairs it, and distrusts what it can not repair.

The use cases are `verify`, `scrub` and `quarantine`; backups and restores import `damage` too.
"""
