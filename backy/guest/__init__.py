"""Files of guests, read from their images in user space: nothing that a guest wrote is trusted."""
