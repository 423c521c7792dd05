"""Simulated users who sign in, browse lists, details, searches and their account (3:2:1:1), and an editor.

Fails unless the service meets its objectives. `make loadtest`, or against any host that has the example accounts:
`locust -f benchmarks/locustfile.py --headless -u 100 -t 60s -H https://…`. Visitors make accounts of their own and
delete them at the end. All come from one address: the service's LIMIT_AUTH must let that many sign in.
"""

import random
from time import monotonic
from typing import Any
from uuid import uuid4

from locust import FastHttpUser, between, events
from locust.exception import StopUser
from locust.stats import StatsEntry

P50_MS = 50
P99_MS = 200
SIGNING_IN = {"register", "log in", "delete account"}
"""What each user does once. Hashing a password is slow on purpose, and a worker does it for one user at a time."""
SIGNING_IN_MS = 2000
"""99 of 100; 32 may wait."""
ERRORS = 0.001
"""Of all requests."""
WORDS = ("laptop", "quiet monitor", "aurora", "wireless mouse", "4k", "bluetooth headset", "charger 65 w")
EDITOR = "editor@example.com"
EXAMPLE_PASSWORD = "testpass123"
EARLY_SECONDS = 10.0
"""How long before it expires an access token is exchanged: a request takes time, and clocks differ."""


class SignedIn(FastHttpUser):  # type: ignore[misc]  # mypy is run without locust
    abstract = True
    wait_time = between(0.1, 0.5)
    seen: tuple[int, ...] | list[int] = ()

    def sign_in(self, email: str, password: str) -> None:
        self.keep(self.client.post("/api/auth/login", json={"email": email, "password": password}, name="log in"))

    def keep(self, response: Any) -> None:
        """Keep the tokens of an answer. A user without them stops, and what failed is counted."""
        if response.status_code != 200:
            raise StopUser
        pair = response.json()
        self.access_token, self.refresh_token = pair["access_token"], pair["refresh_token"]
        self.expires_at = monotonic() + pair["expires_in"]

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request as the user who has signed in, with an access token that is still valid."""
        if monotonic() > self.expires_at - EARLY_SECONDS:
            body = {"refresh_token": self.refresh_token}
            self.keep(self.client.post("/api/auth/refresh", json=body, name="refresh"))
        headers = {"Authorization": f"Bearer {self.access_token}"}
        return self.client.request(method, path, headers=headers, **options)


def list_products(user: SignedIn) -> None:
    with user.request("GET", "/api/products", name="list", catch_response=True) as response:
        if response.status_code == 200:
            user.seen = [item["id"] for item in response.json()["items"]]


def get_product(user: SignedIn) -> None:
    user.request("GET", f"/api/products/{random.choice(user.seen or (1,))}", name="detail")


def search_products(user: SignedIn) -> None:
    user.request("GET", "/api/products/search", params={"q": random.choice(WORDS)}, name="search")


def get_account(user: SignedIn) -> None:
    user.request("GET", "/api/users/me", name="account")


def update_product(user: SignedIn) -> None:
    id, body = random.choice(user.seen or (1,)), {"stock": random.randint(0, 500)}
    user.request("PATCH", f"/api/products/{id}", json=body, name="update")


class Visitor(SignedIn):
    tasks = {list_products: 3, get_product: 2, search_products: 1, get_account: 1}  # noqa: RUF012 - locust's documented form

    def on_start(self) -> None:
        account = {"email": f"visitor-{uuid4().hex}@example.com", "password": uuid4().hex, "name": "Visitor"}
        self.client.post("/api/auth/register", json=account, name="register")
        self.sign_in(account["email"], account["password"])

    def on_stop(self) -> None:
        self.request("DELETE", "/api/users/me", name="delete account")


class Editor(SignedIn):
    fixed_count = 1  # since attempts on one account are counted: many at once would be refused
    tasks = {list_products: 1, get_product: 1, update_product: 1}  # noqa: RUF012 - locust's documented form

    def on_start(self) -> None:
        self.sign_in(EDITOR, EXAMPLE_PASSWORD)


def judge(environment: Any, **_: Any) -> None:
    stats = environment.stats
    signing_in, others = StatsEntry(stats, "signing in", ""), StatsEntry(stats, "others", "")
    for (name, _method), entry in stats.entries.items():
        (signing_in if name in SIGNING_IN else others).extend(entry)
    slow = signing_in.get_response_time_percentile(0.99) or 0
    p50, p99 = (others.get_response_time_percentile(share) or 0 for share in (0.5, 0.99))
    failed = stats.total.fail_ratio
    met = others.num_requests > 0 and p50 < P50_MS and p99 < P99_MS and slow < SIGNING_IN_MS and failed < ERRORS
    times = (
        f"p50 {p50:.0f} ms (< {P50_MS}), p99 {p99:.0f} ms (< {P99_MS}), signing in {slow:.0f} ms (< {SIGNING_IN_MS})"
    )
    rates = f"errors {failed:.2%} (< {ERRORS:.1%}), {stats.total.total_rps:.0f} requests/s"
    print(f"{times}, {rates}: {'passed' if met else 'FAILED'}.")
    environment.process_exit_code = 0 if met else 1


events.quitting.add_listener(judge)
