"""The errors that a service raises. They know no HTTP library and no database.

AppError
├── UnauthenticatedError    the credentials of the request are missing (401)
│   └── InvalidTokenError       they are not valid, or not any more (401)
├── ForbiddenError      the principal may not make the request (403)
├── LimitError          there were too many such requests; one will be accepted later (429)
├── InvalidError        the request cannot be carried out as it was sent (422)
├── InvalidItemsError   some of the many items of a request cannot be taken, so none is (422)
├── MediaTypeError      the body is of a kind that is not accepted (415)
├── NotFoundError       the resource does not exist (404)
├── ConflictError       the state of another resource forbids it (409)
├── ChangedError        the resource was modified since the client read it (412)
├── DeadlineError       the time that there was for it has passed (504)
└── UnavailableError    something that the service depends on cannot be reached; trying again may help (503)
    └── OutcomeUnknownError     a change was sent and not confirmed; repeating it may make it twice (503)

ConfigurationError      the settings cannot be used; the process does not start
"""

import copyreg
from collections.abc import Mapping, Sequence
from typing import Any, Self

__all__ = [
    "AppError",
    "ChangedError",
    "ConfigurationError",
    "ConflictError",
    "DeadlineError",
    "ForbiddenError",
    "InvalidError",
    "InvalidItemsError",
    "InvalidTokenError",
    "LimitError",
    "MediaTypeError",
    "NotFoundError",
    "UnauthenticatedError",
    "UnavailableError",
]


class AppError(Exception):
    """Its text is sent to the client: one clear sentence, never a secret."""

    place: tuple[int | str, ...] = ()

    def at(self, *place: int | str) -> Self:
        """Say what in the body of the request is meant: `raise ConflictError("…").at("lines", 1, "quantity")`."""
        self.place = place
        return self

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields of the answer."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its parameters: a process that calculates may raise any of these errors."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class UnauthenticatedError(AppError):
    def __init__(self, message: str = "Send credentials, as in `Authorization: Bearer <token>`.") -> None:
        super().__init__(message)

    @property
    def headers(self) -> Mapping[str, str]:
        """What is wrong with a token is only said to those who sent one (RFC 6750 §3.1)."""
        return {"WWW-Authenticate": "Bearer"}


class InvalidTokenError(UnauthenticatedError):
    def __init__(self, message: str = "The token is not valid or has expired. Sign in again.") -> None:
        super().__init__(message)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class ForbiddenError(AppError):
    """`scope` is what the credentials lack, if other ones would do."""

    def __init__(self, message: str = "You may not do this.", scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope

    @property
    def headers(self) -> Mapping[str, str]:
        scope = f', scope="{self.scope}"' if self.scope else ""
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope"{scope}'}


class LimitError(AppError):
    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}


class InvalidError(AppError):
    """`value` distinguishes the fields of this name in a request that has several, such as a list of items."""

    def __init__(self, field: str, message: str, value: str | None = None) -> None:
        super().__init__(message)
        self.field, self.value = field, value


class InvalidItemsError(AppError):
    """`faults` are the first of them: each has a `location`, a `pointer` and a `detail`, as `Rows` finds them."""

    def __init__(self, message: str, faults: Sequence[Mapping[str, str]]) -> None:
        super().__init__(message)
        self.faults = faults


class MediaTypeError(AppError):
    pass


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

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}


class OutcomeUnknownError(UnavailableError):
    """Raised by plinth, where the answer to a COMMIT was lost. It is not to be retried without looking."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {}


class ConfigurationError(Exception):
    """The environment holds settings that cannot be used. Its text lists every fault, one a line."""
