"""Phrases that backy prints: plurals, sizes, times, near misses.

Rooms above import `phrases`. It is pure and knows nothing of repositories, plugins or commands.
"""
