import re
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

from app.repositories.images import ImageQueries, ImageRepository, ImageRow
from plinth.database import Versions, check_version
from plinth.errors import MediaTypeError, NotFoundError
from plinth.storage import Files, Storage

# What a file begins with. What a client calls it is not believed, since browsers show it as what we call it.
SIGNATURES = {
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
FOLDER = "products"
SWEPT_AGE = timedelta(days=1)  # longer than any upload that no row names yet
UNDECLARED = {"", "application/octet-stream"}


class ImageReader:
    def __init__(self, images: ImageQueries, storage: Storage) -> None:
        self._images = images
        self._storage = storage

    async def get(self, id: int) -> ImageRow:
        """Raises NotFoundError."""
        image = await self._images.get(id)
        if image is None:
            raise NotFoundError("image of product", id)
        return image

    def read(self, image: ImageRow, start: int, end: int) -> AsyncGenerator[bytes, None]:
        return self._storage.read(image.key, start, end)


class ImageService:
    """Changes images. Each is stored before the transaction of the request, which only names it."""

    def __init__(self, products: ImageQueries, images: ImageRepository, files: Files) -> None:
        self._products = products
        self._images = images
        self._files = files

    async def replace(
        self, id: int, chunks: AsyncIterator[bytes], declared: str, versions: Versions = None
    ) -> tuple[ImageRow, bool]:
        """Return the image, and whether it is the first one.

        Raises NotFoundError for the product, MediaTypeError, and ChangedError for another version.
        """
        if not await self._products.has_product(id):  # before the body is read
            raise NotFoundError("product", id)
        file = await self._files.put(FOLDER, chunks, partial(_content_type, declared))
        if not await self._images.lock_product(id):
            raise NotFoundError("product", id)
        before = await self._images.find(id)
        check_version(before, versions, "image of product", id)
        if before:
            self._files.delete(before.key)
        return await self._images.store(id, **file._asdict()), before is None

    async def delete(self, id: int, versions: Versions = None) -> None:
        """Raises NotFoundError, and ChangedError for another version."""
        image = await self._images.find(id)
        if image is None:
            raise NotFoundError("image of product", id)
        check_version(image, versions)
        await self._images.delete(image)
        self._files.delete(image.key)


async def sweep(images: ImageQueries, storage: Storage) -> int:
    """Delete the files that no image names. Return how many."""
    named, deleted = await images.keys(), 0
    async for key in storage.keys(FOLDER, datetime.now(UTC) - SWEPT_AGE):
        if key not in named:
            await storage.delete(key)
            deleted += 1
    return deleted


def _content_type(declared: str, head: bytes) -> str:
    content_type = next((name for name, signature in SIGNATURES.items() if signature.match(head)), None)
    if content_type is None:
        raise MediaTypeError("Send a JPEG, PNG, GIF or WebP image.")
    if declared.partition(";")[0].strip().lower() not in UNDECLARED | {content_type}:
        raise MediaTypeError(f"The body is {content_type}: send it with this Content-Type, or without one.")
    return content_type
