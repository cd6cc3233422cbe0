"""What is due and what is kept: schedules, rules of retention, and removing what they let go.

`schedule` and `rules` are pure; the use cases are `expire`, `forget`, `purge` and `tags`.
"""
