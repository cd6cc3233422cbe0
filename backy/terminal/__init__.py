"""What is shown on a terminal, or written to a log: tables, and texts that control nothing.

For commands, the console and mounts. No room of the core prints, so none imports from here.
"""
