"""Block-based backup and restore for virtual machine images."""
