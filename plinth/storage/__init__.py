"""Files that clients upload: a local folder or an S3-compatible store behind one interface."""

from plinth.storage.files import Files
from plinth.storage.opening import open_storage
from plinth.storage.settings import StorageSettings
from plinth.storage.storage import Storage

__all__ = ["Files", "Storage", "StorageSettings", "open_storage"]
