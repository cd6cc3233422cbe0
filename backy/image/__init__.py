"""An image as a row of chunks: its map, its spans, its pages, and reading it back with every chunk checked.

Pure: nothing here knows a repository. Rooms above import `chunkmap`, `spans`, `pages`, `stored`, `difference`, `cache`.
"""
