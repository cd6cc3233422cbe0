"""What a scheduler tells others: the status file, metrics, and the judgement of `backy check`.

`status` has the file's types, `reporter` writes it and tells plugins, `check` and `metrics` read it.
"""
