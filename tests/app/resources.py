"""One of each resource, and what else the endpoints take. A new resource or endpoint is added here.

`{n}` is another number each time, for what must be unique. A reference is to the id 1.
"""

from uuid import UUID

from app.enums import Role
from plinth.testing.resources import Content, Form, Resource, Resources
from tests.app.accounts import PASSWORD, REFRESH_TOKEN, RESET_TOKEN, VERIFY_TOKEN, email_of, logins_of

JOB = UUID(int=1)
GIF = b"GIF89a" + bytes(100)
NEW_PASSWORD = "correct horse battery"

RESOURCES = Resources(
    Resource("/api/categories", create={"name": "Name {n}", "description": "Description {n}"}),
    Resource(
        "/api/products",
        create={"sku": "LAP-{n}", "name": "Laptop {n}", "price": "{n}.00", "stock": 7, "category_id": 1},
    ),
    Resource("/api/orders", create={"lines": [{"product_id": 1, "quantity": 1}]}),
    Resource("/api/api-keys", create={"name": "Key {n}"}),
    # A GET that needs more than an id.
    urls={
        "/api/products/search": ["/api/products/search?q=laptop"],
        "/api/products/export": ["/api/products/export?format=json"],
        "/api/jobs/{id}": [f"/api/jobs/{JOB}"],
        "/api/orders/events": ["/api/orders/events?live=false"],
    },
    # A write that is none of a resource's five: `("POST", "/api/invoices/{id}/pay"): {"amount": "19.90"}`, or None.
    bodies={
        ("POST", "/api/products/bulk"): [
            {"sku": "BULK-{n}", "name": "Laptop {n}", "price": "{n}.00", "stock": 7, "category_id": 1}
        ],
        ("PUT", "/api/products/{id}/image"): Content(GIF, "image/gif"),
        ("DELETE", "/api/products/{id}/image"): None,
        ("POST", "/api/auth/register"): {"email": "new{n}@example.com", "password": NEW_PASSWORD, "name": "New"},
        ("POST", "/api/auth/login"): {"email": email_of(Role.USER), "password": PASSWORD},
        ("POST", "/api/auth/token"): Form({"username": email_of(Role.USER), "password": PASSWORD}),
        ("POST", "/api/auth/refresh"): {"refresh_token": REFRESH_TOKEN},
        ("POST", "/api/auth/logout"): {"all": False},
        ("POST", "/api/auth/verify-email"): {"token": VERIFY_TOKEN},
        ("POST", "/api/auth/password/forgot"): {"email": email_of(Role.USER)},
        ("POST", "/api/auth/password/reset"): {"token": RESET_TOKEN, "password": NEW_PASSWORD},
        ("POST", "/api/auth/password/change"): {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        ("PATCH", "/api/users/me"): {"name": "Name {n}"},
        ("DELETE", "/api/users/me"): None,
        ("DELETE", "/api/users/me/sessions/{id}"): None,
        ("PATCH", "/api/users/{id}"): {"role": "editor"},
        ("POST", "/api/reports/prices"): None,
        ("POST", "/api/orders/{id}/cancel"): None,
        ("POST", "/api/orders/{id}/ship"): None,
    },
    # The accounts of the tests are there in any case.
    ids={"/api/users": [1, 2, 3], "/api/users/me/sessions": logins_of(Role.ADMIN)},
)
