"""Disks of QEMU's machines, and exports of NBD servers, as sources for backy and as targets of restores.

The plugins are the modules `disks` and `network`; their configuration is in `config`.
"""
