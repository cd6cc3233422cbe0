"""The commands of `backy`, one a file, each loaded only when it is called.

A command parses its arguments, calls one function of a room, and prints. It imports that room when it is called, so
that `--help` and completion stay fast. Nothing imports a command.
"""
