"""Guards of the house: what is shipped, what is public, what is loaded, what is needed."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCES = {ROOT / "core", ROOT / "adapters"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADAPTERS = {
    "kafka": ("confluent_kafka",),
    "rabbitmq": ("pika", "aio_pika"),
    "servicebus": ("azure.servicebus",),
    "sqs": ("botocore",),
}
"""Each adapter, which is also the name of its extra, and what it cannot do without: one of these."""


def files() -> list[Path]:
    """Return every module of the product, relative to its source root."""
    return sorted(file.relative_to(source) for source in SOURCES for file in source.rglob("*.py"))


def public_modules() -> list[str]:
    """Return the modules that callers may import; the command line is for the terminal alone."""
    names = []
    for file in files():
        parts = file.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in name.split(".")) and ".cli" not in name:
            names.append(name)
    return names


def run(code: str) -> str:
    """Run *code* in an interpreter of its own, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- one namespace from two roots --------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", sorted(SOURCES), ids=lambda path: path.name)
def test_no_source_root_owns_the_namespace(root):
    """With an ``__init__.py`` there, one root would hide the other. Source: PEP 420."""
    assert (root / "postseal").is_dir()
    assert not (root / "postseal" / "__init__.py").exists()


def test_every_adapter_is_known_here():
    portions = {
        path.name for path in (ROOT / "adapters" / "postseal").iterdir() if not path.name.startswith("_")
    }
    assert portions == set(ADAPTERS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Build the wheel, and return the names of what is in it."""
    from hatchling.builders.wheel import WheelBuilder

    built = next(
        WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    )
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_of_both_roots(wheel):
    assert {str(file) for file in files()} <= wheel
    assert "postseal/__init__.py" not in wheel


def test_every_portion_in_the_wheel_is_typed(wheel):
    """PEP 561: each portion of a namespace package needs a marker of its own."""
    assert {f"postseal/{portion}/py.typed" for portion in ("core", *ADAPTERS)} <= wheel


def test_the_wheel_holds_nothing_but_the_product_and_its_licence(wheel):
    others = {name for name in wheel if not name.startswith("postseal/")}
    assert {name.split("/")[0].endswith(".dist-info") for name in others} == {True}
    assert any(name.endswith("/licenses/LICENSE") for name in others)


def test_the_wheel_has_the_accelerator_where_it_can_be_built_and_says_so(tmp_path, monkeypatch):
    from hatchling.builders.wheel import WheelBuilder

    def build() -> tuple[str, list[str]]:
        built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
        with zipfile.ZipFile(built) as archive:
            names = [name for name in archive.namelist() if name.startswith("postseal/core/_native.")]
        return Path(built).name, names

    monkeypatch.setenv("POSTSEAL_NATIVE", "0")
    name, found = build()
    assert name.endswith("-py3-none-any.whl")
    assert found == ["postseal/core/_native.pyi"]
    if shutil.which("cargo"):
        monkeypatch.setenv("POSTSEAL_NATIVE", "1")
        name, found = build()
        assert f"-cp3{sys.version_info.minor}-" in name
        assert len(found) == 2
    monkeypatch.setenv("POSTSEAL_NATIVE", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="cargo"):
        build()


def test_the_source_archive_builds_the_same_wheel(tmp_path, wheel, monkeypatch):
    monkeypatch.setenv("CARGO_TARGET_DIR", str(ROOT / "core" / "native" / "target"))
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    built = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with tarfile.open(built) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer have it
        archive.extractall(tmp_path / "unpacked")  # noqa: S202 - of our own making
    (source,) = (tmp_path / "unpacked").iterdir()
    again = next(WheelBuilder(str(source)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(again) as archive:
        assert set(archive.namelist()) == wheel


# -- what is public ----------------------------------------------------------------------------------------------------


def as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest. Source: ruff, RUF022."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", [name for name in public_modules() if name.startswith("postseal.core")])
def test_all_is_what_is_public(name):
    check_all(importlib.import_module(name))


def check_all(module: ModuleType) -> None:
    """See that *module* says what it is and what of it is public. The adapters' fronts: tests/test_adapters.py."""
    name = module.__name__
    if not (module.__doc__ or "").strip():
        pytest.fail(f"{name} does not say what it is")
    if name == "postseal.core.providers":
        return  # a folder, with nothing of its own
    public = list(module.__all__)
    assert public == sorted(public, key=as_ruff_sorts)
    assert len(set(public)) == len(public)
    assert [missing for missing in public if not hasattr(module, missing)] == []


def test_adapters_take_only_what_a_room_says_is_public():
    """What is not in ``__all__`` may change from one commit to the next."""
    hidden = []
    for file in sorted((ROOT / "adapters").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("postseal.core"):
                public = importlib.import_module(node.module).__all__
                hidden += [f"{file.name}: {node.module}.{a.name}" for a in node.names if a.name not in public]
    assert hidden == []


def test_everything_public_in_the_core_can_be_imported_from_its_front_door():
    import postseal.core

    for name in postseal.core.__all__:
        assert getattr(postseal.core, name).__module__.startswith("postseal.core.")
    with pytest.raises(AttributeError, match="no attribute 'AwsKsm'"):
        postseal.core.AwsKsm  # noqa: B018 - looking is the test


# -- what is loaded ----------------------------------------------------------------------------------------------------


def test_the_core_loads_no_client_library():
    loaded = run("import sys, postseal.core; print(*sys.modules)").split()
    assert "postseal.core" in loaded
    assert "cryptography" in loaded
    for client in (
        "boto3",
        "botocore",
        "confluent_kafka",
        "pika",
        "azure",
        "hvac",
        "asyncio",
        "typer",
        "rich",
        "moto",
        "redis",
        "sqlite3",
        "hashlib",
    ):
        assert client not in loaded


@pytest.mark.parametrize(
    ("name", "sdk", "others"),
    [
        ("AwsKms", "botocore", {"boto3", "azure", "hvac"}),  # the client is the caller's
        ("AzureKeyVault", "azure.keyvault.keys", {"botocore", "hvac", "aiohttp"}),
        ("VaultTransit", "hvac", {"botocore", "azure"}),
    ],
)
def test_key_providers_are_loaded_by_who_names_them(name, sdk, others):
    loaded = run(
        f"import sys; from postseal.core import {name}; print({name}.__name__, *sys.modules)"
    ).split()
    assert loaded[0] == name
    assert sdk in loaded
    assert not others & set(loaded)


def test_an_adapter_without_its_client_names_its_extra():
    for adapter, clients in ADAPTERS.items():
        told = run(f"""
import sys
sys.modules.update(dict.fromkeys({clients!r}))
from postseal.core import MissingExtraError
try:
    import postseal.{adapter}
except MissingExtraError as error:
    print(error)
""")
        assert f"pip install 'postseal[{adapter}]'" in told


def test_the_core_imports_what_it_needs_from_its_own_dependencies_alone():
    """Whatever is imported at the top of a module of the core is standard, ours or cryptography; providers may name their SDK."""
    found = set()
    for file in sorted((ROOT / "core").rglob("*.py")):
        if "cli" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {(alias.name.split(".")[0], file.parent.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add((node.module.split(".")[0], file.parent.name))
    foreign = {
        (module, room)
        for module, room in found
        if module not in sys.stdlib_module_names | {"postseal", "cryptography"}
    }
    sdks = {"azure", "boto3", "botocore", "hvac", "mypy_boto3_kms", "requests"}
    assert {(module, room) for module, room in foreign if room != "providers"} == {
        ("redis", "replay"),
        ("tenacity", "resilience"),
        ("shamir_mnemonic", "recovery"),
        ("opentelemetry", "telemetry"),
    }
    assert {module for module, room in foreign if room == "providers"} <= sdks


# -- what is needed ----------------------------------------------------------------------------------------------------


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [Requirement(text) for texts in (PROJECT["project"]["dependencies"], *extras) for text in texts]


def test_no_dependency_has_an_upper_bound():
    """A cap on cryptography holds back its security fixes; so does one on any client."""
    assert "cryptography" in {requirement.name for requirement in requirements()}
    for requirement in requirements():
        assert {specifier.operator for specifier in requirement.specifier} <= {">="}, requirement
        assert requirement.specifier or requirement.name == "postseal", requirement


def test_the_core_needs_cryptography_alone():
    assert [Requirement(text).name for text in PROJECT["project"]["dependencies"]] == ["cryptography"]


def test_every_adapter_has_an_extra_and_all_names_it():
    extras = PROJECT["project"]["optional-dependencies"]
    assert {*ADAPTERS, "aws"} <= set(extras)
    (everything,) = extras["all"]
    assert set(extras) - {"all"} == Requirement(everything).extras


def test_whatever_is_installed_for_tests_is_pinned():
    groups = PROJECT["dependency-groups"].values()
    named = {requirement.name for requirement in requirements()} - {"postseal"}
    named |= {Requirement(entry).name for group in groups for entry in group if isinstance(entry, str)}
    pinned = {
        canonicalize_name(Requirement(line).name)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert {canonicalize_name(name) for name in named} <= pinned


def test_no_package_registry_is_written_down():
    """Where packages come from is a matter of the machine: a host that only one network knows must not travel with the code."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    names = [name for name in tracked.split("\0") if name]
    assert "constraints.txt" in names
    assert not {"uv.lock", "uv.toml", "pip.conf", ".npmrc", ".pypirc", "settings.xml"} & {
        Path(name).name for name in names
    }
    wanted = re.compile(
        r"(index|find-links|registry)[-_]?(url)?\s*[= ]\s*[\"']?https?://",
        re.IGNORECASE,
    )
    written = []
    for name in names:
        if name.endswith((".bin", ".png", ".gif")) or not (ROOT / name).is_file():
            continue
        if wanted.search((ROOT / name).read_text(errors="replace")):
            written.append(name)
    assert written == []
    assert "://" not in (ROOT / "constraints.txt").read_text()
