"""What an image holds, for the commands that show, compare and check it."""
