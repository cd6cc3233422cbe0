"""The verifiers that come with backy, registered by entry points like anybody's."""
