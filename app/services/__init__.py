"""What the business does. A service holds repositories, never a session, and knows no HTTP."""
