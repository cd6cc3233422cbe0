"""Measures speed, memory and space of backy, of other tools, and of the bare machine: `python -m benchmarks`."""
