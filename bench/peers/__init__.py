"""Other systems that run tasks, measured side by side with ours: see README.md."""
