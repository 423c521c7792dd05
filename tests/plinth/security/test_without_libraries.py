"""A project without accounts may lack PyJWT and pwdlib."""

import subprocess
import sys

import pytest

import plinth.security
from plinth.testing.environment import ROOT

# Importing one of them ends the program.
BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(["cryptography", "jwt", "pwdlib"]))
import plinth.settings
from plinth.security import PUBLIC, Lockout, Principal, requires
from plinth.security import Tokens
"""


def test_only_what_needs_a_library_imports_it() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'File "<string>", line 6, in <module>' in done.stderr
    assert "ModuleNotFoundError: import of" in done.stderr


def test_each_public_name_is_there_and_no_other() -> None:
    assert all(getattr(plinth.security, name) for name in plinth.security.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Token'"):
        plinth.security.Token  # noqa: B018
