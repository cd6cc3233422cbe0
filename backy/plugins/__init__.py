"""Finds, loads and calls plugins. A broken plugin affects only the jobs that use it.

Import `discovery` to list plugins without importing any, `loading` to use one, `events` to notify those with hooks.
"""
