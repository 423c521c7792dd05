from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response, status

from app.access import MAY_WRITE, WRITE_LIMIT
from app.dependencies import IfMatchDep, ImageReaderDep, ImageServiceDep, PathId
from app.schemas.images import ImageRead
from plinth.http import FastRoute, RangeResponse, problem_responses
from plinth.security import PUBLIC

router = APIRouter(prefix="/api/products/{id:digits}/image", tags=["products"], route_class=FastRoute)

MOST_BYTES = 5 * 2**20  # docker/nginx/nginx.conf has the same bound
BINARY = {"schema": {"type": "string", "format": "binary"}}
CONTENT: dict[str, Any] = {f"image/{name}": BINARY for name in ("gif", "jpeg", "png", "webp")}
SHOWN: dict[str, Any] = {"description": "The image, or the bytes that Range names.", "content": CONTENT}
HEADERS = {"Cache-Control": "public, no-cache", "Content-Disposition": "inline"}


@router.get(
    "",
    dependencies=[PUBLIC],
    response_class=Response,
    responses={200: SHOWN, 206: SHOWN, **problem_responses(404, 416)},
)
async def get_product_image(id: PathId, images: ImageReaderDep) -> Response:
    """Return the image of a product, or a range of its bytes."""
    image = await images.get(id)
    return RangeResponse(
        partial(images.read, image),
        size=image.size,
        media_type=image.content_type,
        etag=image.etag,
        modified_at=image.updated_at,
        headers=HEADERS,
    )


@router.put(
    "",
    dependencies=[MAY_WRITE, WRITE_LIMIT],
    max_body_size=MOST_BYTES,
    openapi_extra={"requestBody": {"required": True, "content": CONTENT}},
    responses={201: {"model": ImageRead, "description": "It is the first one."}, **problem_responses(404, 412)},
)
async def replace_product_image(
    id: PathId, request: Request, response: Response, images: ImageServiceDep, if_match: IfMatchDep
) -> ImageRead:
    """Store the image of a product: a JPEG, PNG, GIF or WebP file, as the body."""
    declared = request.headers.get("Content-Type", "")
    image, is_first = await images.replace(id, request.stream(), declared, if_match)
    # The validator of a representation that is stored as it was sent (RFC 9110 §9.3.4).
    response.headers["ETag"] = image.etag
    response.status_code = status.HTTP_201_CREATED if is_first else status.HTTP_200_OK
    return ImageRead.model_validate(image)


@router.delete(
    "",
    dependencies=[MAY_WRITE, WRITE_LIMIT],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 412),
)
async def delete_product_image(id: PathId, images: ImageServiceDep, if_match: IfMatchDep) -> None:
    """Delete the image of a product."""
    await images.delete(id, if_match)
