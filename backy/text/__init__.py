"""How people read what backy prints: tables and phrases, each of them said once.

Import `table` and `phrases`; both are pure and know nothing of repositories, plugins or commands.
"""
