"""System services that Python's library lacks: locks, writes past the page cache, threads, YAML.

Rooms above may import from `locking`, `direct`, `parallel`, `progress` and `safeyaml`.
"""
