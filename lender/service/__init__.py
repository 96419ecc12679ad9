"""The frame of a long-running program: settings and the words to systemd; daemon and broker."""
