"""The definitions behind `backy.api`, a few files, by what they are about.

Nobody imports from here but `backy.api`, which is the public name of all of them.
"""
