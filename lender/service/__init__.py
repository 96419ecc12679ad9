"""The frame of a long-running program, daemon or broker: places, settings, words to systemd."""
