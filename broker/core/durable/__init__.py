"""What RESULTS holds, and how a start reads the streams back."""
