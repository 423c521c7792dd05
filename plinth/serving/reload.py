"""The server of development: one process, which starts again when the code changes."""

from collections.abc import Iterable
from pathlib import Path

import uvicorn


def serve_with_reload(application: str, host: str, port: int, folders: Iterable[Path]) -> None:
    uvicorn.run(
        application,
        host=host,
        port=port,
        reload=True,
        reload_dirs=[str(folder) for folder in folders],
        loop="uvloop",
        http="plinth.serving.protocol:Protocol",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
