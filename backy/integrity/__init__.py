"""Damage: proves it, keeps the evidence, repairs it, and distrusts what it can not repair.

The use cases are `verify` and `quarantine`; backups, restores and scrubs import `damage` too.
"""
