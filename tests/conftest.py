"""Every suite below runs on real servers (see plinth/testing/plugin.py)."""

pytest_plugins = ["plinth.testing.plugin"]
