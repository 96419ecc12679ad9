"""Makes lenderd, the broker or the agent a service of systemd or launchd, and undoes it.

What is to be done is a plan, made by pure functions from what was found (`systemd`, `launchd`);
`carrying_out` does it, or only says it. The units are those of `systemd/` and `launchd/`, which
`units` leads to; `templates` puts in where programs are, and tells an edited file from ours.
"""
