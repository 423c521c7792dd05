"""`make audit`: writes a bill of materials of what production installs, and fails if a part has a known vulnerability.

Both are made from the lock file, with its hashes: cyclonedx-py writes the bill, pip-audit looks for vulnerabilities.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.scratch import run, scratch_environment

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
BILL = ROOT / ".data" / "sbom.cdx.json"
# Without --strict, a package that the service does not have is passed over, and the audit succeeds.
AUDIT = ["--strict", "--require-hashes", "--disable-pip", "--progress-spinner=off", "--requirement"]
DESCRIBE = ["--validate", "--output-reproducible", "--mc-type=application"]


def write_bill(programs: Path, lock: Path, bill: Path) -> None:
    """Write a CycloneDX document with every package of the lock file; it is validated before it is written."""
    options = [*DESCRIBE, "--pyproject", str(ROOT / "pyproject.toml")]
    bill.write_text(run([str(programs / "cyclonedx-py"), "requirements", *options, str(lock)]) + "\n")


def audit(programs: Path, lock: Path, options: Sequence[str]) -> int:
    """Print what is known of the packages of the lock file. Raises SetupError if that could not be found out."""
    command = [str(programs / "pip-audit"), *AUDIT, str(lock), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    if done.returncode == 0:
        print(f"{lines[-1]} in {lock.name}.")
        return 0
    if done.returncode == 1 and done.stdout:  # the table of vulnerabilities
        print(done.stdout.rstrip())
        print(
            f"{lines[-1]}: raise what they name by `make lock UPGRADE=1`, or where a vulnerability does not "
            'concern this service, `make audit ARGS="--ignore-vuln=ID"`.',
            file=sys.stderr,
        )
        return 1
    errors = [line.split(":", 2)[2] for line in lines if line.startswith("ERROR:")]
    raise SetupError(
        f"The packages were not audited ({[*errors, *lines[-1:], 'no output'][0]}): run `make audit` again where the "
        'service that lists vulnerabilities can be reached, or name another: `ARGS="--vulnerability-service=osv"`.'
    )


def main(options: Sequence[str]) -> int:
    try:
        programs = scratch_environment("audit", ["--require-hashes", "-r", str(ROOT / "requirements" / "audit.txt")])
        write_bill(programs, LOCK, BILL)
        print(f"The bill of materials is in {BILL.relative_to(ROOT)}.")
        return audit(programs, LOCK, options)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
