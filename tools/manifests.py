"""`make check-deploy`: renders every overlay of deploy/kubernetes and validates it against Kubernetes' schemas.

kubectl or kustomize renders, kubernetes-validate validates.
"""

import shutil
import sys
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.scratch import SCRATCH, run, scratch_environment

ROOT = Path(__file__).resolve().parent.parent
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
PARTS = ("migration", "service")
ENVIRONMENTS = sorted(path.name for path in OVERLAYS.iterdir())


def render(environment: str, part: str) -> str:
    """Render the manifests as one stream of YAML."""
    folder = str(OVERLAYS / environment / part)
    if shutil.which("kubectl"):
        return run(["kubectl", "kustomize", folder])
    if shutil.which("kustomize"):
        return run(["kustomize", "build", folder])
    raise SetupError("Rendering the manifests needs kubectl or kustomize on the PATH: install one of them.")


def check() -> None:
    requirements = ["--require-hashes", "-r", str(ROOT / "requirements" / "deploy.txt")]
    validate = str(scratch_environment("deploy", requirements) / "kubernetes-validate")
    for environment in ENVIRONMENTS:
        for part in PARTS:
            rendered = SCRATCH / f"{environment}-{part}.yaml"
            rendered.write_text(render(environment, part))
            run([validate, "--strict", "--quiet", str(rendered)])
            print(f"{environment}/{part}: valid")


def main() -> int:
    try:
        check()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
