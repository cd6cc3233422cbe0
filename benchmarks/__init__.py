"""How fast and how economical backy is, beside its peers and beside what the machine can do: `python -m benchmarks`."""
