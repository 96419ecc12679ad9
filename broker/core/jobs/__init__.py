"""One job's life: what it waits for, where its tasks stand, how it ends, and what is remembered."""
