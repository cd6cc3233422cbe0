"""Moving the revisions of a job to another storage, while each of them can be read at any time.

Import `convert.Conversion`. It stands upon the core as everybody's commands do: no room of the core needs it.
"""
