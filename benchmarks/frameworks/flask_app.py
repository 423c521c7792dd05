"""Flask and psycopg."""

import os

import psycopg
from flask import Flask, Response, jsonify

BY_ID = """SELECT p.id, p.sku, p.name, p.description, p.price, p.stock, c.id, c.name,
    p.version, p.created_at, p.updated_at FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = %s"""

app = Flask(__name__)
connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)  # a sync worker answers one at a time


def ping() -> Response:
    return jsonify(status="alive")


def product(id: int) -> Response:
    row = connection.execute(BY_ID, [id]).fetchone()
    id, sku, name, description, price, stock, category_id, category, version, created_at, updated_at = row
    return jsonify(
        id=id,
        sku=sku,
        name=name,
        description=description,
        price=f"{price / 100:.2f}",
        stock=stock,
        category={"id": category_id, "name": category},
        version=version,
        created_at=created_at.isoformat(),
        updated_at=updated_at.isoformat(),
    )


app.add_url_rule("/health/live", view_func=ping)
app.add_url_rule("/api/products/<int:id>", view_func=product)
