"""The drill `qemu`: libguestfs checks the file systems of a revision, and QEMU boots the guest.

Nothing of it is for import by others.
"""
