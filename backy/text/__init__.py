"""Tables and phrases that backy prints.

Rooms above import `table` and `phrases`. Both are pure and know nothing of repositories, plugins or commands.
"""
