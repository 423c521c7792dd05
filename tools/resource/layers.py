"""The new files of a resource: those of the categories with its names, and with blocks of its fields."""

import re
from collections.abc import Sequence
from pathlib import Path

from tools.resource.blocks import BLOCKS, CATEGORIES, Block, Resource
from tools.resource.tests import BLOCKS as TEST_BLOCKS
from tools.resource.tests import without_what_does_not_apply

FOLDER = Path(__file__).parent
PROSE = re.compile(r'("""(?:.|\n)*?"""|#.*|NotFoundError\("[^"]*"|description="[^"]*"|"Category )')


def files(resource: Resource) -> dict[str, str]:
    """The text of each file by its path, before it is formatted."""
    texts = {
        f"app/{layer}/{resource.plural}.py": resource.imports(layer) + rewritten(source(layer), resource, blocks)
        for layer, blocks in BLOCKS.items()
    }
    tests = without_what_does_not_apply(rewritten(source("tests"), resource, TEST_BLOCKS), resource)
    return texts | {f"tests/app/routers/test_{resource.plural}.py": tests}


def source(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text()


def rewritten(text: str, resource: Resource, blocks: Sequence[Block] = ()) -> str:
    """Text of the categories for another resource."""
    parts = [text]  # those with an odd index are finished
    for block in blocks:
        old = block(CATEGORIES)
        index = next(index for index, part in enumerate(parts) if index % 2 == 0 and old in part)
        before, after = parts[index].split(old)
        parts[index : index + 1] = [before, block(resource), after]
    return "".join(part if index % 2 else renamed(part, resource) for index, part in enumerate(parts))


def renamed(text: str, resource: Resource) -> str:
    """In prose `order lines`, in URLs `order-lines`, and elsewhere `order_lines`, `OrderLine` or `ORDER_LINES`."""
    plural, singular = (name.replace("_", " ") for name in (resource.plural, resource.singular))
    article = "an" if re.match(r"[aeio]|u(?!ni|s[aei])|hour", singular) else "a"
    in_prose = {
        "a category": f"{article} {singular}",
        "categories": plural,
        "Categories": plural.capitalize(),
        "category": singular,
        "Category": singular.capitalize(),
    }
    in_code = {
        "/api/categories": f"/api/{resource.path}",
        'tags=["categories"]': f'tags=["{resource.path}"]',
        "categories": resource.plural,
        "category": resource.singular,
        "CATEGORIES": resource.plural.upper(),
        "Category": resource.class_name,
    }
    parts = PROSE.split(text)
    for index, part in enumerate(parts):
        names = in_prose if index % 2 else in_code
        parts[index] = re.sub("|".join(map(re.escape, names)), lambda found, names=names: names[found[0]], part)
    return "".join(parts)
