"""Looking at all chunks of a repository, without doing anything else.

Import `scrub.Scrub`, and `scrub.verify_all`. They stand upon the core as everybody's commands do: no room of the core
needs them.
"""
