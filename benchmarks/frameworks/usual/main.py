from typing import Any

from cachetools import TTLCache
from fastapi import APIRouter, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.frameworks.usual.database import SessionDep, lifespan
from benchmarks.frameworks.usual.models import Product
from benchmarks.frameworks.usual.schemas import ProductCreate, ProductPage, ProductRead, ProductUpdate

router = APIRouter(prefix="/api/products", tags=["products"])
cache: TTLCache[int, ProductRead] = TTLCache(maxsize=1000, ttl=60)


@router.get("", response_model=ProductPage)
async def list_products(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
    query = select(Product).where(Product.id > after).order_by(Product.id).limit(limit)
    return {"items": (await session.scalars(query)).all()}


@router.get("/{id}", response_model=ProductRead)
async def get_product(id: int, session: SessionDep) -> Any:
    return await find(session, id)


@router.get("/{id}/cached", response_model=ProductRead)
async def get_cached_product(id: int, session: SessionDep) -> Any:
    if (product := cache.get(id)) is None:
        product = cache[id] = ProductRead.model_validate(await find(session, id))
    return product


@router.post("", response_model=ProductRead, status_code=201)
async def create_product(data: ProductCreate, session: SessionDep) -> Any:
    product = Product(**data.model_dump())
    session.add(product)
    await session.commit()
    await session.refresh(product)
    return product


@router.patch("/{id}", response_model=ProductRead)
async def update_product(id: int, data: ProductUpdate, session: SessionDep) -> Any:
    product = await find(session, id)
    for name, value in data.model_dump(exclude_unset=True).items():
        setattr(product, name, value)
    await session.commit()
    await session.refresh(product)
    return product


async def find(session: AsyncSession, id: int) -> Product:
    product = await session.get(Product, id)
    if product is None:
        raise HTTPException(404, "Product not found")
    return product


app = FastAPI(lifespan=lifespan)
app.include_router(router)


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "alive"}
