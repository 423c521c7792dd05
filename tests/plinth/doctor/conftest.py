from pathlib import Path

import pytest

from tests.plinth.doctor.support import Project


@pytest.fixture
def project(tmp_path: Path, empty_database_url: str) -> Project:
    return Project(tmp_path, empty_database_url)
