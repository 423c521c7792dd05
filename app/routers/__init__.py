"""HTTP requests. Each router is included directly in the app, with its full prefix, the busiest first."""

from app.routers import categories, health, products

ROUTERS = (products.router, categories.router, health.router)
