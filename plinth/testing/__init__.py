"""Test support: a pytest plugin, embedded servers, a client, a round-trip counter. Production never imports it."""
