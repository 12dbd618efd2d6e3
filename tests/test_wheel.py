"""What is published works where there is nothing else: sdist, wheel built from it, clean environment."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("engine", "log", "projections", "services")

EXTRAS = "metrics,http,s3,parquet,sql,postgres,crypto"
IMPORT_EVERYTHING = """
import importlib, pkgutil, refold
for module in pkgutil.walk_packages(refold.__path__, "refold."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(refold.__file__)
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=dist)  # the wheel from the sdist
    (built,) = dist.glob("*.whl")
    return built


def test_the_wheel_holds_every_source_file_once_under_refold(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = [name for name in archive.namelist() if ".dist-info/" not in name]
    sources = {
        f"refold/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for kind in ("*.py", "*.avsc", "*.js", "*.css")
        for path in (ROOT / folder).rglob(kind)
    }
    assert sorted(packed) == sorted(
        sources | {"refold/__init__.py", "refold/__main__.py", "refold/py.typed"}
    )


def test_the_wheel_runs_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    install = (scripts / "python", "-m", "pip", "install", "--quiet")
    run(*install, wheel, cwd=tmp_path)
    assert "Usage" in run(scripts / "python", "-m", "refold", "--help", cwd=tmp_path)
    assert "Usage" in run(scripts / "refold", "--help", cwd=tmp_path)
    run(*install, f"{wheel}[{EXTRAS}]", cwd=tmp_path)
    assert str(tmp_path) in run(scripts / "python", "-c", IMPORT_EVERYTHING, cwd=tmp_path)
