"""The app with two more endpoints that read the same product, one of them behind `HTTPBearer` and a token check.

`uvicorn --factory benchmarks.secured:create_secured_app` serves it.
"""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.dependencies import PathId, ProductReaderDep
from app.main import create_app
from app.schemas.products import ProductRead
from app.settings import Settings
from benchmarks.bearer import TOKEN
from plinth.http import FastRoute

router = APIRouter(prefix="/benchmark", route_class=FastRoute)


async def get_caller(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """Raises HTTPException unless the token is the right one."""
    if not secrets.compare_digest(credentials.credentials, TOKEN):
        raise HTTPException(401, "The token is not valid.", headers={"WWW-Authenticate": "Bearer"})
    return "benchmark"


CallerDep = Annotated[str, Depends(get_caller)]


@router.get("/open/{id}")
async def get_open(id: PathId, products: ProductReaderDep) -> ProductRead:
    return await products.get(id)


@router.get("/secured/{id}")
async def get_secured(id: PathId, products: ProductReaderDep, _: CallerDep) -> ProductRead:
    return await products.get(id)


def create_secured_app(settings: Settings | None = None) -> FastAPI:
    app = create_app(settings)
    app.include_router(router)
    return app
