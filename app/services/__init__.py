"""What the business does. A service is given repositories, never a session, and knows no HTTP."""
