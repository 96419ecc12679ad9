"""Sandboxes: run one lease's tasks walled off from the owner's machine, stop and kill them."""
