"""What is broken: finding it, keeping the evidence, repairing it, and doubting what can not be repaired.

The use cases are `verify`, `scrub` and `quarantine`; a backup imports `damage` too.
"""
