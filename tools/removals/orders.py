"""The orders, which users make of the example's products: they go with either. Jobs stay as long as accounts do."""

from tools.project import Place
from tools.removals.removal import Removal, blocks, lines

LAYERS = ("models", "schemas", "repositories", "services", "routers", "tasks")

ORDERS = Removal(
    about="the orders",
    paths=[
        *(f"app/{layer}/orders.py" for layer in LAYERS),
        *(f"app/{layer}/dashboard.py" for layer in ("schemas", "repositories", "services", "routers")),
        "app/mails/order.txt",
        "tests/app/routers/test_dashboard.py",
        "tests/app/routers/test_orders.py",
        "tests/app/test_order_concurrency.py",
        "tests/app/test_order_events.py",
    ],
    texts=[
        *blocks(
            "app/enums.py",
            """
class OrderStatus(StrEnum):
    PENDING = "pending"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"
""",
            end="\n\n\n",
        ),
        *lines("app/models/__init__.py", "from app.models.orders import Order, OrderLine\n"),
        *lines("app/tags.py", 'ORDERS = Tag("orders:{user_id}")\n'),
        *blocks("app/jobs.py", "class OrderMail(BaseModel):\n    order_id: int\n", end="\n\n\n"),
        *lines("app/jobs.py", 'ORDER_MAIL = Job("order_mail", OrderMail)\n'),
        *lines(
            "app/dependencies.py",
            """\
from app.repositories.dashboard import DashboardQueries
from app.repositories.orders import OrderQueries, OrderRepository
from app.services.dashboard import DashboardReader
from app.services.orders import OrderReader, OrderService, OrderWatcher
DashboardReaderDep = Annotated[DashboardReader, Depends(get_dashboard_reader)]
OrderReaderDep = Annotated[OrderReader, Depends(get_order_reader)]
OrderWatcherDep = Annotated[OrderWatcher, Depends(get_order_watcher)]
OrderServiceDep = Annotated[OrderService, Depends(get_order_service)]
""",
        ),
        *blocks(
            "app/dependencies.py",
            """
async def get_order_reader(reads: ReadsDep) -> OrderReader:
    return OrderReader(OrderQueries(reads))


async def get_dashboard_reader(reads: ReadsDep, cache: CacheDep) -> DashboardReader:
    return DashboardReader(DashboardQueries(reads), cache)


async def get_order_watcher(request: Request, reads: ReadsDep) -> OrderWatcher:
    return OrderWatcher(OrderQueries(reads), state_of(request)["database"].notifications)


async def get_order_service(session: SessionDep, jobs: JobsDep, invalidate: InvalidateDep) -> OrderService:
    return OrderService(OrderRepository(session), jobs, invalidate)
""",
            end="\n\n\n",
        ),
        *blocks(
            "tests/app/factories.py",
            '''
async def create_order(client: AsyncClient, *lines: tuple[int, int]) -> dict[str, Any]:
    """An order of these products, each with its quantity."""
    return await created(client, "/api/orders", order_data(*lines))


def order_data(*lines: tuple[int, int]) -> dict[str, Any]:
    return {"lines": [{"product_id": id, "quantity": quantity} for id, quantity in lines]}
''',
            end="\n\n\n",
        ),
        *lines(
            "tests/app/resources.py",
            """\
    Resource("/api/orders", create={"lines": [{"product_id": 1, "quantity": 1}]}),
        ("POST", "/api/orders/{id}/cancel"): None,
        ("POST", "/api/orders/{id}/ship"): None,
""",
        ),
        *lines(
            "tests/app/test_access.py",
            """\
    ("GET", "/api/dashboard"): PEOPLE,
    ("GET", "/api/orders"): PEOPLE,
    slow.remove("/api/orders/events")  # a stream
    ("GET", "/api/orders/events"): PEOPLE,
    ("GET", "/api/orders/{id}"): PEOPLE,
    ("POST", "/api/orders"): PEOPLE,
    ("POST", "/api/orders/{id}/cancel"): PEOPLE,
    ("POST", "/api/orders/{id}/ship"): ADMINISTRATORS,
    ("GET", "/api/orders/{id}"),
    ("POST", "/api/orders/{id}/cancel"),
""",
        ),
        *lines(
            "tests/app/test_round_trips.py",
            """\
    ("GET", "/api/dashboard"): 0,  # remembered in the service
    ("GET", "/api/orders"): 2 * READ,  # the orders, and the lines of all of them
    ("GET", "/api/orders/{id}"): 2 * READ,
    ("GET", "/api/orders/events"): 2 * READ,  # where they end, and what is after that
    ("POST", "/api/orders"): 9,  # BEGIN, SELECT FOR UPDATE, UPDATE, two INSERTs, the mail's job and the event, COMMIT
    ("POST", "/api/orders/{id}/cancel"): 9,  # BEGIN, three SELECTs, two UPDATEs, the event, COMMIT
    ("POST", "/api/orders/{id}/ship"): 7,  # BEGIN, two SELECTs, UPDATE, the event, COMMIT
    await onlooker.execute("UPDATE products SET stock = 7")  # or only the first change would change it
    await onlooker.execute("UPDATE orders SET status = 'pending'")  # which only the first call may leave
""",
        ),
        (Place("tests/app/test_openapi.py", ".exclude(path=STREAM)"), ""),
        *lines(
            "tests/app/test_openapi.py",
            '# It does not end, which a client in this process waits for.\nSTREAM = "/api/orders/events"\n',
        ),
        *lines("tests/app/test_openapi.py", "    rb'|\"Another line has this product\\.'\n"),
    ],
    elements=[
        Place("app/models/__init__.py", '"Order"'),
        Place("app/models/__init__.py", '"OrderLine"'),
        Place("tests/app/resources.py", '"/api/orders/events": ["/api/orders/events?live=false"]'),
        Place("app/routers/__init__.py", "dashboard"),
        Place("app/routers/__init__.py", "dashboard.router"),
        Place("app/routers/__init__.py", "orders"),
        Place("app/routers/__init__.py", "orders.router"),
        Place("app/tasks/__init__.py", "orders"),
        Place("app/tasks/__init__.py", "orders.mail_order"),
    ],
    references=[
        r"\bapp\.\w+\.(?:dashboard|orders)\b",
        r"from app\.?\w* import .*\b(?:dashboard|orders)\b",
        r"from app\.models import [^#\n]*\bOrder(?:Event|Line)?\b",
        r"(?:Mapped\[|relationship\().*[\"'\[]Order(?:Event|Line)?\b",
        r"\b(?:Dashboard|Order)(?:Reader|Service|Watcher)Dep\b",
        r"\b(?:ORDER_MAIL|create_order|order_data)\b",
        r"[\"'](?:orders|order_lines|order_events)\.\w+[\"']",
        r"(?i:\b(?:from|join|into|update|table) (?:orders|order_lines|order_events)\b)",
        r"/api/(?:dashboard|orders)\b",
    ],
)
