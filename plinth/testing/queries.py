"""A bound for the statements that a block of a test may run."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import pytest

from plinth.telemetry.requests import RequestRecord, current_record

QueryBudget: TypeAlias = Callable[[int], AbstractContextManager[RequestRecord]]
"""The type of the fixture `query_budget`."""


@contextmanager
def query_budget(most: int) -> Iterator[RequestRecord]:
    """Fail if the block runs more statements than that, and list them.

    Those of requests through the client in this process count, and those that the test itself runs by `Reads` or a
    session. BEGIN and COMMIT do not.
    """
    outer = current_record.get()
    record = RequestRecord()
    record.statements = Counter()
    token = current_record.set(record)
    try:
        yield record
    finally:
        current_record.reset(token)
        if outer:
            outer.absorb(record)
    if record.queries > most:
        listed = "\n".join(f"{count:4} x {' '.join(sql.split())}" for sql, count in record.statements.most_common())
        pytest.fail(f"{record.queries} statements ran, and {most} may:\n{listed}", pytrace=False)
