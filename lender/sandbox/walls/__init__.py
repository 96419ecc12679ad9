"""What a task can't get through: one module for each mechanism of the operating system."""
