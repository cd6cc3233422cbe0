"""The program `backy`: options, logging, output and progress, and how every command ends.

Public: `progress.steps` and `options.tags_of`. `commands/` has one file for each command.
"""
