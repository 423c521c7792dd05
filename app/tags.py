"""What cached responses depend on. Routers name a tag to show it, services to invalidate it."""

from plinth.cache import Tag

CATEGORIES = Tag("categories")
PRODUCTS = Tag("products")
PRODUCT = Tag("product:{id}")
