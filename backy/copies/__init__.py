"""What copies are for: pull from another server, push to one, serve one, and repair from one.

Import the functions of `copies`; `ends` starts the other side. `backy.exchange` has what both sides say.
"""
