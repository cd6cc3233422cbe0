"""The storage `cow`: every revision is a raw image that shares unchanged blocks with its parent."""
