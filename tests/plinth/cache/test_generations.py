"""Which generations a process may rely on, for each order in which replies and messages arrive."""

import pytest

from plinth.cache.generations import Generations


@pytest.fixture
def generations() -> Generations:
    return Generations(max_names=2)


def test_an_announced_token_is_certain_once_it_has_been_published(generations: Generations) -> None:
    generations.observe({"a": "0"}, generations.change_count)
    generations.announce({"a": "2"})
    assert generations.get(["a"]) is None
    generations.apply({"a": "1"})  # another process's, published before ours
    assert generations.get(["a"]) is None
    generations.apply({"a": "2"})
    assert generations.get(["a"]) == {"a": "2"}
    generations.apply({"a": "3"})
    assert generations.get(["a"]) == {"a": "3"}


def test_a_reply_that_is_older_than_a_change_is_ignored(generations: Generations) -> None:
    sent_at_change = generations.change_count
    generations.apply({"a": "2"})
    generations.observe({"a": "1", "b": "1"}, sent_at_change)
    assert generations.get(["a", "b"]) == {"a": "2", "b": "1"}
    generations.announce({"b": "2"})
    generations.observe({"b": "1"}, generations.change_count)
    assert generations.get(["b"]) is None
    generations.clear()
    assert generations.get(["a"]) is None
    generations.observe({"a": "2"}, sent_at_change)
    assert generations.get(["a"]) is None


def test_the_last_change_never_decreases_even_for_evicted_names(generations: Generations) -> None:
    seen = [generations.last_change(["a", "b"])]

    def has_increased() -> bool:
        seen.append(generations.last_change(["a", "b"]))
        return seen[-1] > seen[-2]

    generations.announce({"a": "1"})
    assert has_increased()
    generations.apply({"a": "1"})
    assert has_increased()
    for number in range(3):
        generations.apply({f"other {number}": "1"})
    assert generations.get(["a"]) is None
    assert generations.last_change(["a", "b"]) >= seen[-1]
    generations.observe({"a": "0"}, sent_at_change=seen[-2])  # a reply that is older than the evicted change
    assert generations.get(["a"]) is None
    generations.clear()
    assert has_increased()


def test_tokens_are_outdated_as_soon_as_others_are_announced(generations: Generations) -> None:
    old = {"a": "1", "b": "1"}
    assert not generations.are_outdated(old)
    generations.observe(old, generations.change_count)
    assert not generations.are_outdated(old)
    generations.announce({"b": "2"})
    assert generations.are_outdated(old)
    assert not generations.are_outdated({"a": "1", "b": "2"})
    generations.apply({"b": "2"})
    assert generations.are_outdated(old)
