"""What is due and what is kept: schedules, rules of retention, and the removal of revisions.

`rules` is pure, but for a mark of the last `expire`. The use cases are in `purge` and `tags`; those of
`backy.groups.forget` stand upon them.
"""
