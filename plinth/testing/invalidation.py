"""Finds forgotten invalidations: answers that a cache still gives after a write, and the database no longer does.

Every GET is requested, then one write is made, and every GET is requested again: from the same app, and from one that
has cached nothing. It does not matter where an answer was cached: by `cached_response`, or by `Cache.remember`.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from httpx import AsyncClient, Response

from plinth.testing.resources import Resources, send

_COMPARED_HEADERS = ("ETag", "Last-Modified", "Link")


async def stale_answers(
    client: AsyncClient,
    without_cache: Callable[[], AbstractAsyncContextManager[AsyncClient]],
    resources: Resources,
    paths: list[str],
    write: tuple[str, str],
) -> list[str]:
    """Return a sentence for each GET of `paths` that `client` answers from before the write.

    The database is empty before; `client` is of an app with a cache, and `without_cache` opens one that has none, or an
    empty one. An answer that differs from one request to the next is not cached, and is left out.
    """
    await resources.create_all(client)
    before = {url: await client.get(url) for path in paths for url in resources.urls(path)}
    for path in paths:
        if not any(before[url].is_success for url in resources.urls(path)):
            raise AssertionError(
                f"GET {path} is answered by {before[resources.urls(path)[0]].status_code} only: "
                "add a URL of it to `urls` in tests/app/resources.py."
            )
    repeated = [url for url, answer in before.items() if _shown(await client.get(url)) == _shown(answer)]
    method, path = write
    url, body = resources.request(method, path, 1)
    answer = await send(client, method, url, body)
    if not answer.is_success:
        raise AssertionError(
            f"{method} {url} is refused ({answer.text}), so it tests nothing: correct its body in "
            "tests/app/resources.py."
        )
    after = {url: _shown(await client.get(url)) for url in repeated}
    async with without_cache() as other:
        stale = [url for url in repeated if _shown(await other.get(url)) != after[url]]
    return [
        f"After {method} {path}, GET {url} is answered from before it: "
        "let the service invalidate a tag that this answer has."
        for url in stale
    ]


def _shown(answer: Response) -> object:
    """What a client makes of an answer: all but what differs each time."""
    headers = [answer.headers.get(name) for name in _COMPARED_HEADERS]
    if answer.headers.get("Content-Type", "").endswith("json"):
        body = answer.json()
        if isinstance(body, dict):
            body.pop("request_id", None)  # of a problem
        return answer.status_code, body, headers
    return answer.status_code, answer.content, headers
