"""Simulated users who browse lists, details and searches (3:2:1). Fails unless the service meets its objectives.

`make loadtest`, or against any host: `locust -f benchmarks/locustfile.py --headless -u 100 -t 60s -H https://…`.
"""

import random
from typing import Any

from locust import FastHttpUser, between, events

P50_MS = 50
P99_MS = 200
ERRORS = 0.001
WORDS = ("laptop", "quiet monitor", "aurora", "wireless mouse", "4k", "bluetooth headset", "charger 65 w")


def list_products(user: "Visitor") -> None:
    with user.client.get("/api/products", name="list", catch_response=True) as response:
        if response.status_code == 200:
            user.seen = [item["id"] for item in response.json()["items"]]


def get_product(user: "Visitor") -> None:
    user.client.get(f"/api/products/{random.choice(user.seen) if user.seen else 1}", name="detail")


def search_products(user: "Visitor") -> None:
    user.client.get("/api/products/search", params={"q": random.choice(WORDS)}, name="search")


class Visitor(FastHttpUser):  # type: ignore[misc]  # mypy is run without locust
    wait_time = between(0.1, 0.5)
    tasks = {list_products: 3, get_product: 2, search_products: 1}  # noqa: RUF012 - locust's documented form
    seen: tuple[int, ...] | list[int] = ()


def judge(environment: Any, **_: Any) -> None:
    total = environment.stats.total
    p50, p99 = (total.get_response_time_percentile(share) or 0 for share in (0.5, 0.99))
    met = total.num_requests > 0 and p50 < P50_MS and p99 < P99_MS and total.fail_ratio < ERRORS
    times = f"p50 {p50:.0f} ms (< {P50_MS}), p99 {p99:.0f} ms (< {P99_MS})"
    rates = f"errors {total.fail_ratio:.2%} (< {ERRORS:.1%}), {total.total_rps:.0f} requests/s"
    print(f"{times}, {rates}: {'passed' if met else 'FAILED'}.")
    environment.process_exit_code = 0 if met else 1


events.quitting.add_listener(judge)
