"""Which generations a process may rely on, for each order in which replies and messages arrive."""

import pytest

from plinth.cache.generations import Generations


@pytest.fixture
def generations() -> Generations:
    return Generations(max_bytes=1200)  # two names


def test_tokens_are_known_until_their_name_is_invalidated(generations: Generations) -> None:
    assert generations.get(["a"]) is None
    generations.observe(["a", "b"], ("e", "1", "2"), generations.change_count)
    assert generations.get(["a", "b"]) == ("e", "1", "2")
    generations.forget(["a"])
    assert (generations.get(["a"]), generations.get(["b"])) == (None, ("e", "2"))
    generations.observe(["a"], ("e", "3"), generations.change_count)
    assert generations.get(["a", "b"]) == ("e", "3", "2")


def test_a_reply_that_is_older_than_a_change_is_ignored(generations: Generations) -> None:
    sent_at_change = generations.change_count
    generations.forget(["a"])
    generations.observe(["a", "b"], ("e", "1", "1"), sent_at_change)
    assert (generations.get(["a"]), generations.get(["b"])) == (None, ("e", "1"))
    sent_at_change = generations.change_count
    generations.clear()
    generations.observe(["b"], ("e", "1"), sent_at_change)
    assert generations.get(["b"]) is None
    assert generations.get([]) is None  # the epoch of a reply is as old as its names


def test_another_epoch_forgets_everything_and_the_changes_since_the_command_was_sent(generations: Generations) -> None:
    generations.observe(["b"], ("e", "1"), generations.change_count)
    sent_at_change = generations.change_count
    generations.forget(["a"])
    generations.observe(["a"], ("f", "1"), sent_at_change)
    assert (generations.get(["a"]), generations.get(["b"])) == (None, None)
    generations.observe(["b"], ("f", "2"), generations.change_count)
    generations.observe_epoch("f")
    assert generations.get(["b"]) == ("f", "2")
    generations.observe_epoch(None)  # Redis has lost it
    assert generations.get(["b"]) is None


def test_a_name_whose_token_has_expired_in_redis_gets_the_new_one(generations: Generations) -> None:
    generations.observe(["a"], ("e", "1"), generations.change_count)
    before = generations.change_count
    generations.observe(["a"], ("e", "2"), generations.change_count)
    assert generations.get(["a"]) == ("e", "2")
    assert generations.change_count > before  # what was found valid with the first is looked at again


def test_the_last_change_never_decreases_even_for_evicted_names(generations: Generations) -> None:
    seen = [generations.last_change(["a", "b"])]
    generations.forget(["a"])
    seen.append(generations.last_change(["a", "b"]))
    assert seen[1] > seen[0]
    for number in range(3):
        generations.forget([f"other {number}"])
    assert generations.last_change(["a", "b"]) >= seen[1]
    generations.observe(["a"], ("e", "0"), sent_at_change=seen[1] - 1)  # a reply that is older than the evicted change
    assert generations.get(["a"]) is None
    generations.clear()
    assert generations.last_change([]) == generations.change_count


def test_a_name_that_is_larger_than_the_memory_is_never_certain(generations: Generations) -> None:
    large = "a" * 1000
    before = generations.change_count
    generations.forget([large])
    generations.observe([large], ("e", "1"), before)
    assert generations.get([large]) is None
    assert generations.last_change([large]) > before
