"""Every decoder of bytes from outside, under attack: see README.md."""
