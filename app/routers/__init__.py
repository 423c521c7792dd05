"""What comes in over HTTP. Each router is included straight on the app, with its full prefix, busiest first."""

from app.routers import categories, health, products

ROUTERS = (products.router, categories.router, health.router)
