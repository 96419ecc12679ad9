"""The broker: who gets which machine's time, and which result counts."""
