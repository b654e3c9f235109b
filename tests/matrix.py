"""Run the tests of the core on every other CPython from 3.11 to 3.14 that this machine has.

Each gets an environment of its own, ``.venv-3.X``, with nothing but the core and what its tests need: that also shows that the core works
without any client. The newest has the accelerator, the others do without: all tests pass both ways. What is not here is named, not passed
over in silence.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
UV = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")  # as the Makefile has it
NEEDS = (
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "cbor2",
    "pycose",
    "typer",
    "rich",
    "boto3",
    "moto[kms,sqs]",
    "azure-identity",
    "azure-keyvault-keys",
    "azure-keyvault-secrets",
    "azure-data-tables",
    "jsonschema",
    "aiohttp",
    "hvac",
    "redis",
    "tenacity",
    "opentelemetry-sdk",
    "shamir-mnemonic",
    "hatchling",
)

# uv builds an editable package once at a time, and gives up waiting for its turn.
_INSTALLING = threading.Lock()


def find(version: str) -> str | None:
    """Return a CPython of *version*: on the PATH, or where uv or pyenv keep theirs."""
    on_path = shutil.which(f"python{version}")
    if (
        on_path is not None
        and subprocess.run([on_path, "-c", ""], check=False, capture_output=True).returncode == 0
    ):
        return on_path
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(kept[-1]) if kept else None


def run(version: str) -> str | None:
    """Make the environment and run the tests of the core there, with the accelerator on the newest.

    Returns:
        The version, where they failed. What they print is printed when they are through: other versions run beside them.
    """
    python = find(version)
    if python is None:
        print(f"Python {version}: none on this machine", flush=True)
        return None
    venv = ROOT / f".venv-{version}"
    inside = str(venv / "bin" / "python")
    native = version == max(filter(find, VERSIONS), key=VERSIONS.index) and shutil.which("cargo") is not None
    environment = os.environ | {"POSTSEAL_NATIVE": "1" if native else "0"}
    install = [UV, "pip", "install", "--quiet", "--python", inside, "--constraints", "constraints.txt"]
    anew = ["--reinstall-package", "postseal"]  # as in the Makefile
    with _INSTALLING:
        if not venv.exists():
            subprocess.run([UV, "venv", "--quiet", "--python", python, str(venv)], check=True)
        subprocess.run([*install, *anew, *NEEDS, "--editable", "."], check=True, cwd=ROOT, env=environment)
    # The cache of the run beside this one is left alone.
    test = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core"]
    done = subprocess.run(
        test,
        check=False,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(
        f"Python {version}{' with' if native else ', without'} the accelerator: {python}\n{done.stdout}",
        flush=True,
    )
    return version if done.returncode else None


def main() -> int:
    """Run all that are here, side by side, but for the one that runs this: the other tests run on it."""
    versions = [
        version for version in VERSIONS if version != f"{sys.version_info.major}.{sys.version_info.minor}"
    ]
    with ThreadPoolExecutor(max_workers=len(versions)) as pool:
        failed = [version for version in pool.map(run, versions) if version is not None]
    if failed:
        print(f"The tests of the core failed on Python {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
