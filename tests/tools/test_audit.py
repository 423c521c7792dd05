"""`make audit`: the bill of materials, and the audit, which asks a local service for vulnerabilities."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from plinth.testing.locks import SetupError
from tests.tools.support import ROOT, outcome, plain_environment
from tests.tools.test_requirements import entries, locked
from tools import audit, scratch

VULNERABILITY = {
    "id": "PYSEC-2026-7",
    "aliases": ["CVE-2026-7"],
    "details": "A test.",
    "affected": [
        {
            "package": {"name": "cronsim", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both programs as the lock file has them, in an environment of this pytest worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "SCRATCH", tmp_path_factory.mktemp("scratch"))
        yield scratch.scratch_environment("audit", ["--require-hashes", "-r", str(ROOT / "requirements/audit.txt")])


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A part of the lock file, since the service is asked for each package."""
    path = tmp_path / "lock.txt"
    path.write_text("".join(f"{entry}\n" for entry in entries("runtime") if re.match("cronsim==|six==|pyjwt==", entry)))
    return path


@contextmanager
def service(vulnerable: str) -> Iterator[list[str]]:
    """Answers as OSV does; yields the options that name it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = {"vulns": [VULNERABILITY]} if asked["package"]["name"] == vulnerable else {}
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield ["--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{server.server_port}/"]
        finally:
            server.shutdown()
            thread.join()


def test_the_bill_has_every_package_of_the_lock_file_with_its_version_and_hashes(
    programs: Path, tmp_path: Path
) -> None:
    written = tmp_path / "sbom.cdx.json"
    audit.write_bill(programs, audit.LOCK, written)
    bill = json.loads(written.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["type"]) == ("CycloneDX", "application")
    assert {each["name"]: each["version"] for each in bill["components"]} == locked("runtime")
    hashes = [file["content"] for each in bill["components"] for file in each["externalReferences"][0]["hashes"]]
    assert sorted(hashes) == sorted(re.findall("sha256:([0-9a-f]{64})", audit.LOCK.read_text()))


def test_a_bill_that_would_not_be_valid_is_not_written(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("cronsim==2.8 --hash=sha256:0123\n")
    with pytest.raises(SetupError, match="valid"):
        audit.write_bill(programs, tmp_path / "lock.txt", tmp_path / "sbom.cdx.json")
    assert not (tmp_path / "sbom.cdx.json").exists()


def test_a_known_vulnerability_fails_unless_it_is_ignored(
    programs: Path, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(vulnerable="cronsim") as options:
        assert audit.audit(programs, lock, options) == 1
        printed = capsys.readouterr()
        assert re.search(r"cronsim +\S+ +PYSEC-2026-7 +99\.1", printed.out)
        assert "Found 1 known vulnerability in 1 package: " in printed.err
        assert audit.audit(programs, lock, [*options, "--ignore-vuln=CVE-2026-7"]) == 0
    assert capsys.readouterr().out == "No known vulnerabilities found, 1 ignored in lock.txt.\n"


def test_a_service_that_cannot_be_reached_fails_with_one_sentence(programs: Path, lock: Path) -> None:
    with service(vulnerable="another") as options:
        pass
    with pytest.raises(
        SetupError, match=r"^The packages were not audited \(.*[Cc]onnection.*\): run `make audit`"
    ) as told:
        audit.audit(programs, lock, options)
    assert len(str(told.value).splitlines()) == 1


def test_a_package_without_a_hash_is_refused(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("cronsim==2.8\n")
    with service(vulnerable="another") as options, pytest.raises(SetupError, match=r"were not audited .*hash"):
        audit.audit(programs, tmp_path / "lock.txt", options)


def test_a_package_that_the_service_does_not_have_is_not_passed_over(programs: Path, lock: Path) -> None:
    """With the default service, which answers 404; where it cannot be reached, that is the same to the audit."""
    lock.write_text(f"no-such-package-of-plinth==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SetupError, match="were not audited"):
        audit.audit(programs, lock, ["--timeout=5"])


def test_make_writes_the_bill_and_passes_on_its_arguments() -> None:
    code, printed, error = outcome(["make", "--dry-run", "audit", "ARGS=--ignore-vuln=ID"], ROOT, plain_environment())
    assert (code, error) == (0, "")
    assert printed.splitlines()[-1] == "exec .venv/bin/python -m tools.audit --ignore-vuln=ID"


def test_a_workflow_runs_it_every_week() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/audit.yml").read_text())
    assert workflow[True]["schedule"] == [{"cron": "41 4 * * 1"}]
    assert [step for step in workflow["jobs"]["audit"]["steps"] if step.get("run") == "make audit"]
