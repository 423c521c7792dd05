"""`app doctor`: finds what usually goes wrong, and says what mends it. The command is all that it offers."""

__all__: list[str] = []
