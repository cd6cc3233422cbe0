"""The overview: static HTML pages of all jobs, without scripts.

`overview` is imported from the command. What a page looks like is in `templates`, which are of Jinja.
"""
