"""An image as a row of chunks: its map, its spans, and how it is read back with every chunk checked.

Nothing here knows a repository. Rooms above import `spans` and `stored`.
"""
