"""The broker's core with a fleet of ten thousand lenders, over days of simulated time.

What is real: `broker.core`, the bytes of what it hears and says, and its time. What is simulated:
the lenders and their owners, NATS, and the clock. See bench/README.md for what that leaves out.
"""
