"""Ways to run lender: on one machine, on Kubernetes, over Headscale."""
