"""What submitters are told when they ask."""
