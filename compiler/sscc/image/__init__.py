"""Responses become frames, and frames an image."""
