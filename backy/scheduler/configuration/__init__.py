"""The file /etc/backy.conf: reading it, checking it as a whole, and where a scheduler is to be found.

Import `configuration.load` and its types; `document` and `validation` are its tools.
"""
