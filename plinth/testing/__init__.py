"""For tests: a pytest plugin, embedded servers, a client, a counter of round trips. Production never imports it."""
