"""Ports: how frames get to an interface and from it, each opened in its own way."""
