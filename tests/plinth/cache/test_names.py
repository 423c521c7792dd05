"""What a process knows of generations, in whatever order it hears of them."""

import pytest

from plinth.cache.store import Names


@pytest.fixture
def names() -> Names:
    return Names(max_names=2)


def test_what_was_told_is_known_once_it_is_heard_in_its_place(names: Names) -> None:
    names.learn({"a": "0"}, names.changes)
    names.tell({"a": "2"})
    assert names.generations(["a"]) is None
    names.hear({"a": "1"})  # somebody else's, from before
    assert names.generations(["a"]) is None
    names.hear({"a": "2"})
    assert names.generations(["a"]) == {"a": "2"}
    names.hear({"a": "3"})
    assert names.generations(["a"]) == {"a": "3"}


def test_an_answer_from_before_a_change_teaches_nothing(names: Names) -> None:
    asked_at = names.changes
    names.hear({"a": "2"})
    names.learn({"a": "1", "b": "1"}, asked_at)
    assert names.generations(["a", "b"]) == {"a": "2", "b": "1"}
    names.tell({"b": "2"})
    names.learn({"b": "1"}, names.changes)
    assert names.generations(["b"]) is None
    names.forget()
    assert names.generations(["a"]) is None
    names.learn({"a": "2"}, asked_at)
    assert names.generations(["a"]) is None


def test_each_change_is_a_later_one_even_of_names_that_are_crowded_out(names: Names) -> None:
    seen = [names.last_change(["a", "b"])]

    def is_later() -> bool:
        seen.append(names.last_change(["a", "b"]))
        return seen[-1] > seen[-2]

    names.tell({"a": "1"})
    assert is_later()
    names.hear({"a": "1"})
    assert is_later()
    for number in range(3):
        names.hear({f"other {number}": "1"})
    assert names.generations(["a"]) is None
    assert names.last_change(["a", "b"]) >= seen[-1]
    asked_at = seen[-2]
    names.learn({"a": "0"}, asked_at)  # an answer from before what was crowded out
    assert names.generations(["a"]) is None
    names.forget()
    assert is_later()


def test_what_is_past_is_past_as_soon_as_it_is_told(names: Names) -> None:
    old = {"a": "1", "b": "1"}
    assert not names.are_past(old)
    names.learn(old, names.changes)
    assert not names.are_past(old)
    names.tell({"b": "2"})
    assert names.are_past(old)
    assert not names.are_past({"a": "1", "b": "2"})
    names.hear({"b": "2"})
    assert names.are_past(old)
