"""Tasks that are leased more than once: second attempts, answers to compare, and whom to trust."""
