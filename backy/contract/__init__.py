"""The definitions behind `backy.api`, one file for each kind of thing.

Nobody imports from here but `backy.api`, which is the public name of all of them.
"""
