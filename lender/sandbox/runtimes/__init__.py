"""How a task is run: one module for each runtime, in a process that the launcher forked."""
