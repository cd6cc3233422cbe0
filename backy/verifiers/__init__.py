"""The verifiers that come with backy. Entry points register them, as they do for other plugins."""
