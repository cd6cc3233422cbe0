"""The journal of a repository: what was done to its revisions, in lines that are chained by hashes.

`replay` has the format and what follows from it, `journal` the file. Only `repository` imports from here, and those
who audit.
"""
