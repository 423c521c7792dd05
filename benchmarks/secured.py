"""The app with three more endpoints that read the same product: for everyone, behind `HTTPBearer` and a comparison of
the token, and for those who have signed in, as the app's own endpoints are.

`uvicorn --factory benchmarks.secured:create_secured_app` serves it.
"""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.access import PrincipalDep
from app.dependencies import PathId, ProductReaderDep
from app.main import create_app
from app.schemas.products import ProductRead
from app.settings import Settings
from benchmarks.bearer import TOKEN
from plinth.http import FastRoute
from plinth.security import PUBLIC

router = APIRouter(prefix="/benchmark", route_class=FastRoute)


async def get_caller(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """Raises HTTPException unless the token is the right one."""
    if not secrets.compare_digest(credentials.credentials, TOKEN):
        raise HTTPException(401, "The token is not valid.", headers={"WWW-Authenticate": "Bearer"})
    return "benchmark"


CallerDep = Annotated[str, Depends(get_caller)]


@router.get("/open/{id}", dependencies=[PUBLIC])
async def get_open(id: PathId, products: ProductReaderDep) -> ProductRead:
    return await products.get(id)


@router.get("/signed-in/{id}")
async def get_signed_in(id: PathId, products: ProductReaderDep, _: PrincipalDep) -> ProductRead:
    return await products.get(id)


@router.get("/secured/{id}", dependencies=[PUBLIC])  # so that the token is all that it does more
async def get_secured(id: PathId, products: ProductReaderDep, _: CallerDep) -> ProductRead:
    return await products.get(id)


def create_secured_app(settings: Settings | None = None) -> FastAPI:
    app = create_app(settings)
    app.include_router(router)
    return app
