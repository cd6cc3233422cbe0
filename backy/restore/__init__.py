"""Getting an image back.

`restore.Restore` is the use case; `target` opens what is written to, `salvage` goes on over damage, `estimate`
looks ahead.
"""
