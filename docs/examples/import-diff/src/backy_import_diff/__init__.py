"""`backy import-diff`: revisions of what `rbd export-diff` wrote elsewhere."""
