"""README and the programs by which a repository is restored and audited without backy. They are copied into each one.

The programs are data here: they run on CPython 3.8 and later, and import no backy. Import `explain` to write them.
"""
