"""Settings of the storage of files: `STORAGE_FOLDER` is `settings.storage.folder`, and so on."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
_ENDPOINT = re.compile(r"https?://[^\s/?#@]+/?")


def _url(url: str) -> str:
    if url and not _BUCKET.fullmatch(url):
        raise ValueError("must look like s3://bucket/prefix")
    if url and find_spec("obstore") is None:
        raise ValueError("needs the `s3` extra; install it, or leave this out")
    return url


def _endpoint(url: str) -> str:
    if url and not _ENDPOINT.fullmatch(url):
        raise ValueError("must look like https://s3.example.com")
    return url


class StorageSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_url)] = Field(
        "", description="Bucket where uploads are kept, such as s3://bucket/prefix. Unset: in STORAGE_FOLDER."
    )
    folder: Path = Field(Path(".data/uploads"), description="Where they are kept on this host.")
    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        "", description="Address of the S3-compatible store. Unset: that of AWS."
    )
    region: str = Field("us-east-1", description="Region of the bucket.")
    access_key: str = Field("", description="Id of the key for it. Unset: as AWS's own tools find one.")
    secret_key: SecretStr | None = Field(None, description="Secret of this key.")
    timeout_seconds: float = Field(10.0, gt=0, le=86_400, description="Longest wait for one answer of the store.")
    allow_plaintext: bool = Field(False, description="Let production reach the store without TLS.")

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if bool(self.access_key) != bool(self.secret_key):
            yield "STORAGE_ACCESS_KEY: must be set together with STORAGE_SECRET_KEY, or neither of them"
        if self.url and self.endpoint.startswith("http://") and not self.allow_plaintext:
            yield "STORAGE_ENDPOINT: must be https, or set STORAGE_ALLOW_PLAINTEXT=true where the network is private"
