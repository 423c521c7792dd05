"""The errors that a service raises. They know no HTTP library and no database.

AppError
├── InvalidError        the request cannot be carried out as it was sent (422)
├── NotFoundError       the resource does not exist (404)
├── ConflictError       the state of another resource forbids it (409)
├── ChangedError        the resource was modified since the client read it (412)
├── DeadlineError       the time that there was for it has passed (504)
└── UnavailableError    something that the service depends on cannot be reached; trying again may help (503)
    └── OutcomeUnknownError     a change was sent and not confirmed; repeating it may make it twice (503)

ConfigurationError      the settings cannot be used; the process does not start
"""

import copyreg
from typing import Any

__all__ = [
    "AppError",
    "ChangedError",
    "ConfigurationError",
    "ConflictError",
    "DeadlineError",
    "InvalidError",
    "NotFoundError",
    "UnavailableError",
]


class AppError(Exception):
    """Its text is sent to the client: one clear sentence, never a secret."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its parameters: a process that calculates may raise any of these errors."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InvalidError(AppError):
    """`value` distinguishes the fields of this name in a request that has several, such as a list of items."""

    def __init__(self, field: str, message: str, value: str | None = None) -> None:
        super().__init__(message)
        self.field, self.value = field, value


class NotFoundError(AppError):
    def __init__(self, resource: str, id: int | str) -> None:
        super().__init__(f"{resource.capitalize()} {id} does not exist.")


class ConflictError(AppError):
    pass


class ChangedError(AppError):
    def __init__(self, resource: str, id: int | str) -> None:
        super().__init__(f"{resource.capitalize()} {id} was modified since you read it. Fetch it again and retry.")


class DeadlineError(AppError):
    def __init__(self) -> None:
        super().__init__("The request took longer than is allowed and was stopped. Try again, or request less at once.")


class UnavailableError(AppError):
    """`retry_after_seconds` is how long the client should wait."""

    retry_after_seconds = 1


class OutcomeUnknownError(UnavailableError):
    """Raised by plinth, where the answer to a COMMIT was lost."""


class ConfigurationError(Exception):
    """The environment holds settings that cannot be used. Its text lists every fault, one a line."""
