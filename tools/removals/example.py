"""The example: products, their imports, categories, and the data that `app seed` loads."""

from tools.project import Place
from tools.removals.removal import Removal, blocks, lines

LAYERS = ("models", "schemas", "repositories", "services", "routers")

EXAMPLE = Removal(
    about="the example: products, categories and the made-up data",
    paths=[
        *(
            f"app/{layer}/{resource}.py"
            for resource in ("categories", "images", "imports", "products")
            for layer in LAYERS
        ),
        "app/example_data.py",
        "app/repositories/example_data.py",
        "tests/app/routers/test_catalogue_caching.py",
        "tests/app/routers/test_categories.py",
        "tests/app/routers/test_images.py",
        "tests/app/routers/test_imports.py",
        "tests/app/routers/test_product_export.py",
        "tests/app/routers/test_product_input.py",
        "tests/app/routers/test_products.py",
        "tests/app/test_example_data.py",
    ],
    texts=[
        *lines(
            "app/models/__init__.py",
            """\
from app.models.categories import Category
from app.models.images import Image
from app.models.imports import Import, ImportRow
from app.models.products import Product
""",
        ),
        *lines(
            "app/tags.py",
            """\
CATEGORIES = Tag("categories")
PRODUCTS = Tag("products")
PRODUCT = Tag("product:{id}")
IMPORTS = Tag("imports")  # each changes so many products that it does not name them
""",
        ),
        *lines(
            "app/dependencies.py",
            """\
from app.repositories.categories import CategoryQueries, CategoryRepository
from app.repositories.images import ImageQueries, ImageRepository
from app.repositories.imports import ImportQueries, ImportRepository
from app.repositories.products import ProductExports, ProductQueries, ProductRepository
from app.services.categories import CategoryReader, CategoryService
from app.services.images import ImageReader, ImageService
from app.services.imports import ImportReader, ImportService
from app.services.products import FacetReader, ProductExporter, ProductReader, ProductService
CategoryReaderDep = Annotated[CategoryReader, Depends(get_category_reader)]
CategoryServiceDep = Annotated[CategoryService, Depends(get_category_service)]
ImageReaderDep = Annotated[ImageReader, Depends(get_image_reader)]
ImageServiceDep = Annotated[ImageService, Depends(get_image_service)]
ProductReaderDep = Annotated[ProductReader, Depends(get_product_reader)]
ProductServiceDep = Annotated[ProductService, Depends(get_product_service)]
ProductExporterDep = Annotated[ProductExporter, Depends(get_product_exporter)]
FacetReaderDep = Annotated[FacetReader, Depends(get_facet_reader)]
ImportReaderDep = Annotated[ImportReader, Depends(get_import_reader)]
ImportServiceDep = Annotated[ImportService, Depends(get_import_service)]
""",
        ),
        *blocks(
            "app/dependencies.py",
            """
async def get_category_reader(reads: ReadsDep) -> CategoryReader:
    return CategoryReader(CategoryQueries(reads))


async def get_category_service(session: SessionDep, invalidate: InvalidateDep) -> CategoryService:
    return CategoryService(CategoryRepository(session), invalidate)


async def get_image_reader(reads: ReadsDep, storage: StorageDep) -> ImageReader:
    return ImageReader(ImageQueries(reads), storage)


async def get_image_service(reads: ReadsDep, session: SessionDep, storage: StorageDep) -> ImageService:
    return ImageService(ImageQueries(reads), ImageRepository(session), Files(storage, session))


async def get_product_reader(reads: ReadsDep) -> ProductReader:
    return ProductReader(ProductQueries(reads))


async def get_product_service(session: SessionDep, invalidate: InvalidateDep) -> ProductService:
    return ProductService(ProductRepository(session), invalidate)


async def get_product_exporter(export: ExportDep) -> ProductExporter:
    return ProductExporter(ProductExports(export))


async def get_facet_reader(reads: ReadsDep, cache: CacheDep) -> FacetReader:
    return FacetReader(ProductQueries(reads), cache)
""",
            end="\n\n\n",
        ),
        (
            Place(  # the second as it is without jobs
                "app/dependencies.py",
                """\
async def get_import_reader(reads: ReadsDep) -> ImportReader:
    return ImportReader(ImportQueries(reads))


async def get_import_service(session: SessionDep, invalidate: InvalidateDep) -> ImportService:
    return ImportService(ImportRepository(session), invalidate)


""",
            ),
            "",
        ),
        (Place("app/cli.py", "SEED_TIMEOUT_SECONDS = 3600  # a million products are one statement\n"), ""),
        (Place("app/cli.py", "SEED_CONNECT_SECONDS = 30.0  # no client waits\n"), ""),
        *blocks(
            "app/cli.py",
            '''
@app.command()
def seed(
    context: typer.Context,
    products: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many products to make.")] = 10_000,
) -> None:
    """Load example data into an empty catalogue.

    Example: app seed --products 1000000
    """
    settings: Settings = context.obj
    if not settings.app.example_data:
        fail("Example data is off; set APP_EXAMPLE_DATA=true to load it.")
    try:
        loaded = asyncio.run(_seed(settings, products))
    except UnavailableError as error:
        fail(f"The database could not be filled: {error.__cause__ or error}")
    print(f"Loaded {loaded:,} products." if loaded else "There is a catalogue already; nothing was loaded.")


async def _seed(settings: Settings, products: int) -> int:
    from app.repositories.example_data import load_example_data
    from plinth.database import open_database

    patient = settings.database.direct.model_copy(
        update={"statement_timeout_seconds": SEED_TIMEOUT_SECONDS, "connect_timeout_seconds": SEED_CONNECT_SECONDS}
    )
    async with (
        open_database(patient, settings.app.name) as database,
        database.sessions.begin() as session,
    ):
        return await load_example_data(session, products, partial(progress, length=products, label="Loading products"))
''',
        ),
        *lines(
            "app/settings.py",
            """\
    example_data: bool = Field(False, description="Let `app seed` load example data. Refused in production.")
        if self.example_data:
            yield "APP_EXAMPLE_DATA: must be off in production"
""",
        ),
        *lines(
            ".env.example",
            "# Let `app seed` load example data. Refused in production.\n#APP_EXAMPLE_DATA=false\n",
        ),
        *blocks(
            "app/cli.py",
            '''
@app.command("sweep-uploads")
def sweep_uploads(context: typer.Context) -> None:
    """Delete files that are older than a day and belong to no row: of deleted products, and of processes that died.

    Example: app sweep-uploads
    """
    try:
        print(f"Deleted {asyncio.run(_sweep_uploads(context.obj)):,} files.")
    except UnavailableError as error:
        fail(f"The files could not be compared with the database: {error.__cause__ or error}")


async def _sweep_uploads(settings: Settings) -> int:
    from app.repositories.images import ImageQueries
    from app.services.images import sweep
    from plinth.database import open_database
    from plinth.storage import open_storage

    async with (
        open_database(settings.database, settings.app.name) as database,
        open_storage(settings.storage) as storage,
    ):
        return await sweep(ImageQueries(database.reads), storage)
''',
        ),
        (Place("docker/entrypoint.sh", " | seed | sweep-uploads"), ""),
        (Place("docker-compose.override.yml", "command: [sh, -c, app migrate && app seed]"), "command: [migrate]"),
        (Place("docker-compose.override.yml", ', APP_EXAMPLE_DATA: "true"'), ""),
        *blocks(
            "tests/app/factories.py",
            """
def product_data(category_id: int = 1, **changes: Any) -> dict[str, Any]:
    data = {
        "sku": "LAP-000001",
        "name": "Aurora 14 Laptop",
        "description": "Light and quiet.",
        "price": "1299.00",
        "stock": 7,
        "category_id": category_id,
    }
    return data | changes


async def create_category(client: AsyncClient, name: str = "Laptops", **changes: Any) -> dict[str, Any]:
    return await created(client, "/api/categories", {"name": name, **changes})


async def create_product(client: AsyncClient, category_id: int = 1, **changes: Any) -> dict[str, Any]:
    return await created(client, "/api/products", product_data(category_id, **changes))
""",
        ),
        *blocks(
            "tests/app/conftest.py",
            '''
async def add_import(onlooker: asyncpg.Connection) -> None:
    """One import of no rows."""
    columns = "mode, skips_errors, state, rows, done, failed, errors"
    await onlooker.execute(f"INSERT INTO product_imports ({columns}) VALUES ('insert', false, 'done', 0, 0, 0, '[]')")
''',
            end="\n\n\n",
        ),
        *lines("tests/app/conftest.py", "    await add_import(onlooker)\n"),
        *blocks(
            "tests/app/resources.py",
            """
    Resource("/api/categories", create={"name": "Name {n}", "description": "Description {n}"}),


    Resource(
        "/api/products",
        create={"sku": "LAP-{n}", "name": "Laptop {n}", "price": "{n}.00", "stock": 7, "category_id": 1},
    ),


        ("POST", "/api/products/bulk"): [
            {"sku": "BULK-{n}", "name": "Laptop {n}", "price": "{n}.00", "stock": 7, "category_id": 1}
        ],
""",
        ),
        *lines(
            "tests/app/resources.py",
            """\
GIF = b"GIF89a" + bytes(100)
        ("PUT", "/api/products/{id}/image"): Content(GIF, "image/gif"),
        ("DELETE", "/api/products/{id}/image"): None,
""",
        ),
        *lines(
            "tests/app/test_round_trips.py",
            """\
    ("GET", "/api/products/{id}/image"): READ,
    ("PUT", "/api/products/{id}/image"): READ + 5,  # BEGIN, two SELECT FOR UPDATE, INSERT, COMMIT
    ("DELETE", "/api/products/{id}/image"): DELETE,
    ("GET", "/api/products"): READ,
    ("GET", "/api/products/search"): 4,  # BEGIN, SET, SELECT, COMMIT
    ("GET", "/api/products/facets"): 0,  # remembered in the service
    ("GET", "/api/products/export"): 5,  # connects, prepares, quotes the values, COPY, closes
    ("GET", "/api/products/{id}"): READ,
    ("POST", "/api/products"): CREATE,
    ("PUT", "/api/products/{id}"): UPDATE,
    ("PATCH", "/api/products/{id}"): UPDATE,
    ("DELETE", "/api/products/{id}"): DELETE,
    ("POST", "/api/products/bulk"): 10,  # whatever the number of rows: COPY, and one statement in a savepoint
    ("GET", "/api/imports/{id}"): READ,
    ("GET", "/api/categories"): READ,
    ("GET", "/api/categories/{id}"): READ,
    ("POST", "/api/categories"): CREATE,
    ("PUT", "/api/categories/{id}"): UPDATE,
    ("PATCH", "/api/categories/{id}"): UPDATE,
    ("DELETE", "/api/categories/{id}"): DELETE,
""",
        ),
    ],
    elements=[
        Place("app/models/__init__.py", '"Category"'),
        Place("app/models/__init__.py", '"Image"'),
        Place("app/models/__init__.py", '"Import"'),
        Place("app/models/__init__.py", '"ImportRow"'),
        Place("app/models/__init__.py", '"Product"'),
        Place("app/routers/__init__.py", "categories"),
        Place("app/routers/__init__.py", "images"),
        Place("app/routers/__init__.py", "imports"),
        Place("app/routers/__init__.py", "products"),
        Place("app/routers/__init__.py", "categories.router"),
        Place("app/routers/__init__.py", "images.router"),
        Place("app/routers/__init__.py", "imports.router"),
        Place("app/routers/__init__.py", "products.router"),
        Place("tests/app/resources.py", '"/api/products/search": ["/api/products/search?q=laptop"]'),
        Place("tests/app/resources.py", '"/api/products/export": ["/api/products/export?format=json"]'),
    ],
    references=[
        r"\bapp\.\w+\.(?:categories|images|imports|products|example_data)\b",
        r"\bapp\.example_data\b",
        r"from app\.?\w* import .*\b(?:categories|images|imports|products|example_data)\b",
        r"from app\.models import [^#\n]*\b(?:Category|Image|Import(?:Row)?|Product)\b",
        r"(?:Mapped\[|relationship\().*[\"'\[](?:Category|Product)\b",
        r"\b(?:Category|Image|Import|Product|Facet)(?:Reader|Service|Exporter)Dep\b",
        r"\btags\.(?:CATEGORIES|IMPORTS|PRODUCTS?)\b",
        r"[\"'](?:categories|products)\.\w+[\"']",
        r"(?i:\b(?:from|join|into|update|table) (?:categories|products|product_import\w+)\b)",
        r"/api/(?:categories|imports|products)\b",
        r"\b(?:create_category|create_product|product_data)\b",
    ],
)
