// Express and pg.

const express = require("express");
const { Pool } = require("pg");

const BY_ID = `SELECT p.id, p.sku, p.name, p.description, p.price, p.stock, c.id AS category_id, c.name AS category_name,
  p.version, p.created_at, p.updated_at FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = $1`;

const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 5 });
const app = express();

app.get("/health/live", (request, response) => response.json({ status: "alive" }));

app.get("/api/products/:id", async (request, response) => {
  const { rows: [row] } = await pool.query({ name: "by-id", text: BY_ID, values: [request.params.id] });
  const { id, category_id, category_name, price, ...rest } = row;
  const category = { id: Number(category_id), name: category_name };
  response.json({ id: Number(id), ...rest, price: (price / 100).toFixed(2), category });
});

app.listen(process.env.PORT, process.env.HOST);
