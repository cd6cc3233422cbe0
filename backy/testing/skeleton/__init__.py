"""The skeletons of plugins, a folder for each kind, and `common` with what all have. `packages` makes a package of one.

The folders are templates, which nothing imports.
"""
