"""The NATS adapter that broker, daemon and client share. Imports: lender.protocol, nats-py."""
