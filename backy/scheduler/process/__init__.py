"""The scheduler as a process: its children and threads, its base directory, and how it is asked.

Each module stands alone; the daemon and the rooms beside this one import them.
"""
