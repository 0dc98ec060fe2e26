"""What the compiler and the runtime both know of a packet image, and of the terminal."""
