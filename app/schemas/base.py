"""What requests and responses have in common."""

from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

ItemT = TypeVar("ItemT", bound=BaseModel)

MOST_FAULTS = 1000


class RequestSchema(BaseModel):
    """The body of a request. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="wrap")
    @classmethod
    def _bound_faults(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Count many faults instead of describing them, which costs far more than finding them."""
        try:
            return handler(data)
        except ValidationError as error:
            count = error.error_count()
            if count <= MOST_FAULTS:
                raise
            raise PydanticCustomError("many_faults", "Input has {count} faults", {"count": count}) from None

    def changes(self) -> dict[str, Any]:
        """The values to store, by the names of columns."""
        return self.model_dump()


class PatchSchema(RequestSchema):
    """Some fields of a resource. A field that is left out is MISSING and not changed; `null` would be a value."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _change_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("Send at least one field to change")
        return self


class ListQuery(BaseModel):
    """The query parameters that every list takes."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100, description="Items on a page.")
    cursor: str | None = Field(None, max_length=2000, description="The `next_cursor` of the page before.")
    total: bool = Field(False, description="Count all matching items; the more there are, the longer it takes.")


class Page(BaseModel, Generic[ItemT]):
    items: list[ItemT]
    next_cursor: str | None = Field(description="Ask for the next page with it; null on the last page.")
    total: int | None = Field(description="How many items match; null unless asked for with `total=true`.")
