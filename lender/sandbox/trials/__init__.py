"""What the self-test asks and sees on each system: a script, a probe, and how to judge them."""
