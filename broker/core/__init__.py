"""The broker's decisions: pure state machines, no I/O, no clock, no randomness."""
