"""HTTP requests. Each router is included directly in the app, with its full prefix, the busiest first."""

from app.routers import api_keys, auth, categories, health, jobs, products, reports, users

ROUTERS = (
    products.router,
    categories.router,
    auth.router,
    users.router,
    api_keys.router,
    reports.router,
    jobs.router,
    health.router,
)
