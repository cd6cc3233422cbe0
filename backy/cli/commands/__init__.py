"""The commands of `backy`, one a file, each loaded only when it is called.

A command parses its arguments, calls one function of a room, and prints. Nothing imports a command.
"""
