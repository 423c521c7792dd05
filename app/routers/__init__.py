"""HTTP requests. Each router is included directly in the app, with its full prefix, the busiest first."""

from app.routers import categories, health, jobs, products, reports

ROUTERS = (products.router, categories.router, reports.router, jobs.router, health.router)
