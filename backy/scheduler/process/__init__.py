"""The scheduler as a process: its children, its base directory, systemd, and waiting for several things.

Each module stands alone; the daemon and `jobs` import them.
"""
