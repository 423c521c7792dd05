from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from app.models import Image, Product
from plinth.database import Query, Readable, Session


class ImageRow(NamedTuple):
    id: int
    key: str
    content_type: str
    size: int
    hash: str
    version: int
    updated_at: datetime

    @property
    def etag(self) -> str:
        return f'"{self.version}.{self.hash}"'


COLUMNS = [getattr(Image, name).label(name) for name in ImageRow._fields]
BY_ID = Query(ImageRow, select(*COLUMNS).where(Image.id == bindparam("id")))
KEYS = Query(str, select(Image.key))
PRODUCT = Query(int, select(Product.id).where(Product.id == bindparam("id")))
INSERT = insert(Image)
CHANGED = {name: INSERT.excluded[name] for name in ImageRow._fields if name != "id"}
STORE = INSERT.on_conflict_do_update("pk_product_images", set_=CHANGED).returning(*COLUMNS)


class ImageQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def get(self, id: int) -> ImageRow | None:
        return await self.db.first(BY_ID, id=id)

    async def keys(self) -> set[str]:
        return {*await self.db.all(KEYS)}

    async def has_product(self, id: int) -> bool:
        return await self.db.first(PRODUCT, id=id) is not None


class ImageRepository(ImageQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def lock_product(self, id: int) -> bool:
        """Until the end of the transaction no other one stores an image of this product, or deletes the product."""
        product = select(Product.id).where(Product.id == id).with_for_update(key_share=True)
        return await self.session.scalar(product) is not None

    async def find(self, id: int) -> Image | None:
        """The entity, locked until the end of the transaction."""
        return await self.session.get(Image, id, with_for_update=True)

    async def store(self, id: int, **values: Any) -> ImageRow:
        """Add the image, or replace the one that is there."""
        connection = await self.session.connection()
        return ImageRow(*(await connection.execute(STORE, {"product_id": id, **values})).one())

    async def delete(self, image: Image) -> None:
        await self.session.delete(image)
        await self.session.flush()
