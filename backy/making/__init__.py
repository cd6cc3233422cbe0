"""Making a repository: what `backy init` runs.

Import `make_repository`, and `rebuild_repository` for one whose records a storage keeps. `try_storage` makes nothing.
"""
