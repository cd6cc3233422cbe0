"""The journal of a repository: what was done to its revisions, in lines that are chained by hashes.

`lines` has the format, `journal` the file. What follows from the lines is in `backy.answers.replay`. Only `repository`
imports from here, and those who audit.
"""
