"""What is due and what is kept: schedules, rules of retention, and the removal of revisions.

`schedule` and `rules` are pure. The use cases are `expire`, `forget`, `purge` and `tags`.
"""
