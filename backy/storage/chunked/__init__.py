"""Images as content-addressed chunks: each content is stored once a repository."""
