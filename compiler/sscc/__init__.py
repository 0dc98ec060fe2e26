"""Sandstorm's compiler: turns files into a packet image."""
