"""The bound for statements that a test sets."""

import pytest

from plinth.telemetry.requests import current_record
from plinth.testing.queries import query_budget


def run(*statements: str) -> None:
    record = current_record.get()
    assert record is not None
    for statement in statements:
        record.add_statement(statement, 0.001)


def test_a_block_within_its_budget_passes() -> None:
    with query_budget(2) as record:
        run("SELECT 1", "SELECT 2")
    assert record.queries == 2
    assert current_record.get() is None


def test_a_block_beyond_its_budget_fails_and_lists_its_statements() -> None:
    with pytest.raises(pytest.fail.Exception) as failed, query_budget(2):
        run("SELECT 1", "SELECT\n  2", "SELECT\n  2")
    assert str(failed.value) == "3 statements ran, and 2 may:\n   2 x SELECT 2\n   1 x SELECT 1"


def test_an_error_in_the_block_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), query_budget(0):
        run("SELECT 1")
        raise ZeroDivisionError


def test_an_outer_budget_counts_what_an_inner_one_allows() -> None:
    with pytest.raises(pytest.fail.Exception, match="2 statements ran, and 1 may"), query_budget(1):
        with query_budget(1):
            run("SELECT 1")
        with query_budget(1):
            run("SELECT 1")
