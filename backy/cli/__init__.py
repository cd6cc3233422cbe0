"""The command line: one module a command, each named by an entry point like anybody's."""
