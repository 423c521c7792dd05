import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import MISSING, BaseModel, ConfigDict, Field

from app.schemas.base import ListQuery, PatchSchema, RequestSchema
from app.schemas.types import Amount, Count, Id, Price, Text, VisibleText, text_with

# A character of a word: no white space, control character or punctuation, of which search operators consist.
WORD = re.compile(r"[^\x00-/:-@\[-`{-\x7f]")

Sku = Annotated[VisibleText, Field(max_length=64, examples=["LAP-000042"])]
Name = Annotated[VisibleText, Field(max_length=200, examples=["Aurora 14 Laptop"])]
Description = Annotated[Text, Field(max_length=10_000)]


class ProductCreate(RequestSchema):
    sku: Sku
    name: Name
    description: Description = ""
    price: Amount
    stock: Count = 0
    category_id: Id


class ProductUpdate(PatchSchema):
    sku: Sku | MISSING = MISSING
    name: Name | MISSING = MISSING
    description: Description | MISSING = MISSING
    price: Amount | MISSING = MISSING
    stock: Count | MISSING = MISSING
    category_id: Id | MISSING = MISSING


class ProductCategory(BaseModel):
    id: int
    name: str


class ProductRead(BaseModel):
    id: int
    sku: str
    name: str
    description: str
    price: Price
    stock: int
    category: ProductCategory
    version: int
    created_at: datetime
    updated_at: datetime


class ProductDetail(ProductRead):
    """A single product. Its representation also changes when its category is renamed."""

    last_modified_at: datetime


class ProductFilters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sort: Literal["id", "-id", "name", "-name", "price", "-price", "created_at", "-created_at"] = Field(
        "id", description="A `-` sorts downwards."
    )
    category: Id | None = Field(None, description="Only products of the category with this id.")
    min_price: Amount | None = Field(None, description="Only products at this price or above.")
    max_price: Amount | None = Field(None, description="Only products at this price or below.")
    in_stock: bool | None = Field(None, description="Only products that are in stock, or that are not.")


class ProductListQuery(ListQuery, ProductFilters):
    pass


class ProductExportQuery(ProductFilters):
    format: Literal["ndjson", "json", "csv"] = Field(
        "ndjson", description="`csv` has an apostrophe before text that a spreadsheet would take for a formula."
    )


class ProductSearchQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    q: Text = Field(
        max_length=200,
        description="Words to find; the last may be the beginning of one.",
        json_schema_extra={"pattern": text_with(WORD)},
    )
    limit: int = Field(20, ge=1, le=100, description="How many products to return, best match first.")


class ProductHit(ProductRead):
    passage: str = Field(description="HTML: the text that matches best, with each match in `<mark>`.")


class ProductSearchResult(BaseModel):
    items: list[ProductHit]


class CategoryFacet(BaseModel):
    id: int
    name: str
    products: int = Field(description="How many products are in the category.")
    min_price: Price | None
    max_price: Price | None


class ProductFacets(BaseModel):
    """What a shop shows beside a list: the categories, how many products each has, and at which prices."""

    categories: list[CategoryFacet]
