"""The journal of a repository: what was done to its revisions, in lines that are chained by hashes.

`lines` has the format, `replay` what follows from it, `journal` the file. Only `repository` imports from here,
and those who audit.
"""
