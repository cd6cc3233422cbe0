"""QEMU's agent in a guest: the moment `guest-agent`, and the program by which that freezes and thaws."""
