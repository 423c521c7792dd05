"""What can go wrong in the business. Knows no HTTP library and no database.

AppError
├── InvalidError        the request cannot be carried out as it was asked
├── NotFoundError       the thing asked for does not exist
├── ConflictError       the state of something else forbids it
├── ChangedError        the thing is no longer what the client takes it for
└── UnavailableError    something this service stands on is away; trying again may help
"""

__all__ = [
    "AppError",
    "ChangedError",
    "ConfigurationError",
    "ConflictError",
    "InvalidError",
    "NotFoundError",
    "UnavailableError",
]


class AppError(Exception):
    """Its text is shown to the client: one clear sentence, never a secret."""


class InvalidError(AppError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NotFoundError(AppError):
    def __init__(self, resource: str, id: int | str) -> None:
        super().__init__(f"There is no {resource} {id}.")


class ConflictError(AppError):
    pass


class ChangedError(AppError):
    def __init__(self, resource: str, id: int | str) -> None:
        super().__init__(f"The {resource} {id} has changed meanwhile; get it again, and decide anew.")


class UnavailableError(AppError):
    pass


class ConfigurationError(Exception):
    """The environment holds settings that cannot be used. Its text lists every fault, one a line."""
