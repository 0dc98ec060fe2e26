"""What each path of a site is answered with, and every response to it."""
