"""Jobs whose tasks run at the same time or not at all."""
