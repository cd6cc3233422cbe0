"""Looking at all chunks of a repository, without doing anything else.

Import `scrub.Scrub`. It stands upon the core as everybody's commands do: no room of the core needs it.
"""
