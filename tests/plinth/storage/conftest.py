"""Both stores: a folder, and a bucket of localbucket, an S3-compatible server that checks no signatures."""

from collections.abc import AsyncIterator, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from localbucket import S3Handler

from plinth.storage import Storage, StorageSettings, open_storage

KINDS = ["folder", "bucket"]


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[StorageSettings]:
    """The settings of a bucket, which is the folder `bucket` of the test's own folder."""

    class Handler(S3Handler):  # type: ignore[misc]
        data_root = tmp_path

    (tmp_path / "bucket").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield StorageSettings(url="s3://bucket/some/prefix", endpoint=endpoint, access_key="id", secret_key="secret")
        server.shutdown()
        thread.join()


@pytest.fixture(params=KINDS)
def storage_settings(request: pytest.FixtureRequest, tmp_path: Path) -> StorageSettings:
    if request.param == "folder":
        return StorageSettings(folder=tmp_path / "folder")
    settings: StorageSettings = request.getfixturevalue("bucket")
    return settings


@pytest.fixture
async def storage(storage_settings: StorageSettings) -> AsyncIterator[Storage]:
    async with open_storage(storage_settings) as storage:
        yield storage


@pytest.fixture
def files(tmp_path: Path) -> "Files":
    return Files(tmp_path)


class Files:
    """What is on the disk, be it by the store or by the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self) -> dict[str, bytes]:
        found = [path for path in self._folder.rglob("*") if path.is_file()]
        return {path.name: path.read_bytes() for path in found}
