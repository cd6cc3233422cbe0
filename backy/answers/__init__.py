"""What people ask: how revisions differ, how long a restore takes, why one is kept, how much space all of them take.

Commands ask, and the scheduler asks how much space is taken. Nothing here changes a repository.
"""
