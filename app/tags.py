"""What cached responses depend on. Routers name a tag to show it, services to invalidate it."""

from plinth.cache import Tag

CATEGORIES = Tag("categories")
PRODUCTS = Tag("products")
PRODUCT = Tag("product:{id}")
IMPORTS = Tag("imports")  # each changes so many products that it does not name them
ORDERS = Tag("orders:{user_id}")
USER = Tag("user:{id}")
LOGIN = Tag("login:{id}")
API_KEY = Tag("api_key:{hash}")
