"""The thin shell around the broker's core: NATS, settings, the command `lender-broker`."""
