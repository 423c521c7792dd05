"""HTTP requests. Each router is included directly in the app, with its full prefix, the busiest first."""

from fastapi import APIRouter

from app.routers import (
    api_keys,
    audit,
    auth,
    categories,
    dashboard,
    health,
    images,
    imports,
    jobs,
    orders,
    products,
    reports,
    users,
)

ROUTERS = (
    products.router,
    images.router,
    categories.router,
    imports.router,
    orders.router,
    dashboard.router,
    auth.router,
    users.router,
    api_keys.router,
    audit.router,
    reports.router,
    jobs.router,
    health.router,
)
# Served in addition where /docs is.
DOCS_ROUTERS: tuple[APIRouter, ...] = (auth.docs_router,)
