"""What the tests call in another process."""

import os
import time

from plinth.errors import NotFoundError


def square(number: int) -> int:
    return number * number


def process_id() -> int:
    return os.getpid()


def fail(id: int) -> None:
    raise NotFoundError("product", id)


def hang(path: str) -> None:
    """Write the id of this process to a file, and never end."""
    with open(f"{path}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.part", path)
    while True:
        time.sleep(60)


def spin(begun: str, enough: str) -> None:
    """Make a file, and occupy a core until there is another one."""
    open(begun, "w").close()
    while not os.path.exists(enough):
        pass


def read_no_more() -> int:
    """The process ends when it would read what to do next."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return os.getpid()
