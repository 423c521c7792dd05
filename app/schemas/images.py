from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class ImageRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    product_id: int = Field(validation_alias="id")
    content_type: str = Field(examples=["image/webp"])
    size: int = Field(description="In bytes.")
    version: int = Field(description="Another one for each image that was ever stored.")
    updated_at: datetime
