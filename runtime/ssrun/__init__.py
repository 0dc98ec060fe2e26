"""Sandstorm's runtime: serves a packet image."""
