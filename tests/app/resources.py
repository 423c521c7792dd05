"""One of each resource, and what else the endpoints take. A new resource or endpoint is added here.

`{n}` is another number each time, for what must be unique. A reference is to the id 1.
"""

from uuid import UUID

from plinth.testing.resources import Resource, Resources

JOB = UUID(int=1)

RESOURCES = Resources(
    Resource("/api/categories", create={"name": "Name {n}", "description": "Description {n}"}),
    Resource(
        "/api/products",
        create={"sku": "LAP-{n}", "name": "Laptop {n}", "price": "{n}.00", "stock": 7, "category_id": 1},
    ),
    # A GET that needs more than an id.
    urls={"/api/products/search": ["/api/products/search?q=laptop"], "/api/jobs/{id}": [f"/api/jobs/{JOB}"]},
    # A write that is none of a resource's five: `("POST", "/api/orders/{id}/pay"): {"amount": "19.90"}`, or None.
    bodies={("POST", "/api/reports/prices"): None},
)
