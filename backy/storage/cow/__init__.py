"""The storage `cow`: every revision is a raw image that shares the blocks it has in common with its parent."""
