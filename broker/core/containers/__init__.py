"""Collections that cost what they hold, whatever has gone through them."""
