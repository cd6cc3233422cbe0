"""One job's directory: its `config`, its records and maps, and the plugins that it names.

`repository.Repository` is the way in; whoever needs records alone imports `records.Records` and `revision.Revision`.
"""
