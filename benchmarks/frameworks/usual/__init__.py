"""The usual FastAPI template: how most published templates read and write rows, on the tables of the app.

A yielded `AsyncSession` per request, an engine with pre-ping and the default pool (5 + 10), ORM entities, `session.add`
with commit and refresh, and responses validated from attributes. It has no middleware and no log, and the relationship
is loaded by a join, which is the cheapest of the usual ways: the comparison is on the template's terms.
"""
