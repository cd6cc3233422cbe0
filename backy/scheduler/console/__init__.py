"""What people tell a running scheduler: the telnet console, `backy client`, and the table of jobs.

The daemon imports `access`, commands import `jobtable`.
"""
