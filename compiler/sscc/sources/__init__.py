"""The files that a manifest names: found, read, and encoded."""
