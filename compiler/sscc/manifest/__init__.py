"""The manifest: its language, and the files that it is read from."""
