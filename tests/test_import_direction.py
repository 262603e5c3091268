"""The direction of imports: symlearn -> curvature, priors; siblings stay strangers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("symlearn", "curvature", "priors")

# Package -> top-level names it may not import.
FORBIDDEN = {
    "symlearn": {"tests", "benchmarks"},
    "curvature": {"symlearn", "priors", "tests", "benchmarks"},
    "priors": {"symlearn", "curvature", "tests", "benchmarks"},
}
# Package of siblings -> the modules in it that they may share.
SIBLINGS = {"symlearn.paths": {"base", "factored", "window"}}


def imported_names(source: str, package: str) -> Iterator[str]:
    """Yield the absolute dotted name of everything a source text imports, wherever it stands.

    `from a.b import c` gives `a.b.c`, whether or not c is a module; relative imports are resolved
    against `package`, and `import_module("a.b")` counts as an import of `a.b`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.args[0].value


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return one line for each import that the module of that name may not have."""
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for name in imported_names(source, package):
        if name.partition(".")[0] in FORBIDDEN[module.partition(".")[0]]:
            found.append(f"{module} imports {name}")
        for family, shared in SIBLINGS.items():
            inside = package == family and not is_package
            if inside and (name == family or name.startswith(f"{family}.")):
                sibling = name.removeprefix(family).lstrip(".").partition(".")[0]
                if sibling not in shared and module != f"{family}.{sibling}":
                    found.append(f"{module} imports its sibling {name}; it may share {shared}")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and file of each module of the three packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.core
def test_imports_go_one_way() -> None:
    found = [
        line
        for name, path in modules()
        for line in violations(
            path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py"
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.core
def test_every_package_has_modules() -> None:
    assert {name.partition(".")[0] for name, _ in modules()} == set(PACKAGES)


@pytest.mark.core
def test_every_folder_is_a_package() -> None:
    # Without __init__.py, pytest puts the folder itself on sys.path and imports its files twice.
    folders = {path.parent for root in (*PACKAGES, "tests") for path in (ROOT / root).rglob("*.py")}
    lacking = sorted(f for f in folders if not (f / "__init__.py").is_file())
    assert not lacking, f"add __init__.py to {', '.join(str(f.relative_to(ROOT)) for f in lacking)}"


@pytest.mark.core
@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("curvature.blocks", "import symlearn"),
        ("curvature.blocks", "import symlearn.paths.conv as c"),
        ("curvature.blocks", "from priors import PathPrior"),
        ("curvature.adapters.backpack", "from symlearn.paths import base"),
        ("priors.prior", "def f():\n    from curvature.blocks import KroneckerBlocks"),
        ("priors.prior", "import importlib\nimportlib.import_module('curvature')"),
        ("priors.prior", "__import__('symlearn.wrap')"),
        ("symlearn.wrap", "if True:\n    import tests.cases"),
        ("symlearn.wrap", "from benchmarks.bench_speed import main"),
        ("symlearn.paths.ffc", "from symlearn.paths.conv import Conv"),
        ("symlearn.paths.ffc", "from symlearn.paths import Conv"),
        ("symlearn.paths.ffc", "import symlearn.paths"),
        ("symlearn.paths.ffc", "from .conv import Conv"),
        ("symlearn.paths.ffc", "from . import conv"),
        ("symlearn.paths.ffc", "from ..paths.conv import Conv"),
    ],
)
def test_checker_catches_a_forbidden_import(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.core
@pytest.mark.parametrize(
    ("module", "source", "is_package"),
    [
        ("symlearn.wrap", "import curvature, priors, torch\nfrom priors import PathPrior", False),
        ("symlearn.wrap", "from symlearn.paths.conv import Conv", False),
        ("symlearn.paths", "from symlearn.paths.conv import Conv\nfrom . import ffc", True),
        ("symlearn.paths.ffc", "from symlearn.paths.base import Path\nfrom . import base", False),
        ("symlearn.paths.ffc", "from ..groups import Z\nfrom curvature import rules", False),
        ("curvature.blocks", "from .rules import Rule\nimport symlearning", False),
    ],
)
def test_checker_lets_the_rest_pass(module: str, source: str, is_package: bool) -> None:
    assert violations(source, module, is_package=is_package) == []


@pytest.mark.core
def test_importing_the_packages_imports_no_extra() -> None:
    code = f"import sys, {', '.join(PACKAGES)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded
    assert sorted(loaded & set(EXTRAS)) == []
