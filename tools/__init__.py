"""Development commands. Production never imports them."""
