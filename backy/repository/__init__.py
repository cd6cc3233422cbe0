"""One job's directory: its `config`, its records and maps, and the plugins that it names.

Import `repository.Repository` for all of it. Import `records.Records` and `revision.Revision` for the records alone.
"""
