"""What the machine says about itself: one file per source."""
