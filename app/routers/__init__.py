"""HTTP requests. Each router is included directly in the app, with its full prefix, the busiest first."""

from app.routers import categories, health, jobs, products

ROUTERS = (products.router, categories.router, jobs.router, health.router)
