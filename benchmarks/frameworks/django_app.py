"""Django and its ORM."""

import os
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path.strip("/"),
            "USER": url.username,
            "HOST": url.hostname,
            "PORT": url.port,
            "CONN_MAX_AGE": None,
        }
    },
)

import django

django.setup()

from django.core.wsgi import get_wsgi_application
from django.db import models
from django.http import JsonResponse
from django.urls import path


class Category(models.Model):  # type: ignore[misc]  # mypy is run without Django
    name = models.CharField(max_length=100)

    class Meta:
        app_label, db_table, managed = "shop", "categories", False


class Product(models.Model):  # type: ignore[misc]
    sku = models.CharField(max_length=64)
    name = models.CharField(max_length=200)
    description = models.TextField()
    price = models.BigIntegerField()
    stock = models.IntegerField()
    category = models.ForeignKey(Category, on_delete=models.RESTRICT)
    version = models.IntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label, db_table, managed = "shop", "products", False


def ping(_request: Any) -> Any:
    return JsonResponse({"status": "alive"})


def product(_request: Any, id: int) -> Any:
    row = Product.objects.select_related("category").get(pk=id)
    return JsonResponse(
        {
            "id": row.id,
            "sku": row.sku,
            "name": row.name,
            "description": row.description,
            "price": f"{row.price / 100:.2f}",
            "stock": row.stock,
            "category": {"id": row.category.id, "name": row.category.name},
            "version": row.version,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )


urlpatterns = [path("health/live", ping), path("api/products/<int:id>", product)]
app = get_wsgi_application()
