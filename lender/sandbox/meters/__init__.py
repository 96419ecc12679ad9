"""What a task wrote, used and tried, as it is seen from outside of it."""
