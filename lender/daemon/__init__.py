"""lenderd: the shell around `lender.core`. NATS, sandboxes, files and the control socket."""
