"""A guest of QEMU that has parts of Linux which the kernel of this machine may lack."""
