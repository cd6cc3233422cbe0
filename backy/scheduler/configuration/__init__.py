"""The file /etc/backy.conf: reads it, checks it as a whole, and finds the files of a scheduler.

Import `configuration.load` and its types, and `checking.check`; all other modules are their tools.
"""
