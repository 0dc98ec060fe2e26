"""The command `sscc`."""
