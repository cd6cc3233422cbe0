"""The storage `chunked`: images as content-addressed chunks. Each content is stored once in a repository."""
