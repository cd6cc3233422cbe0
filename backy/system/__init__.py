"""What Linux gives beyond Python's library: locks, writes past the page cache, threads, YAML.

Every room above may import from `locking`, `direct`, `parallel`, `progress` and `safeyaml`.
"""
