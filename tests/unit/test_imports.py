"""Who imports whom: the compiler and the runtime share what is below both, no module is in a circle, no phase knows the
next one."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssimage._sandstorm import lib

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    name: ROOT / folder / name
    for name, folder in (("sscc", "compiler"), ("ssrun", "runtime"), ("ssimage", "runtime"))
}
# What each may import of the others. `sscc serve` serves as ssrun does: that has one module for it.
MAY_IMPORT = {"sscc": ("ssimage", "ssrun.embed"), "ssrun": ("ssimage",), "ssimage": ()}
# Each may import those before it.
SSCC_ORDER = (
    *("sscc", "sscc.errors", "sscc.signals", "sscc.scratch", "sscc.target", "sscc.terminal"),
    *(
        "sscc.manifest",
        "sscc.sources",
        "sscc.responses",
        "sscc.plan",
        "sscc.image",
        "sscc.build",
        "sscc.inspect",
        "sscc.cli",
    ),
)
SSRUN_ORDER = (
    *(
        "ssrun",
        "ssrun.errors",
        "ssrun.events",
        "ssrun.notify",
        "ssrun.addresses",
        "ssrun.handover",
        "ssrun.settings",
        "ssrun.names",
        "ssrun.peer",
    ),
    *(
        "ssrun.config",
        "ssrun.wording",
        "ssrun.activation",
        "ssrun.log_formats",
        "ssrun.log_sinks",
        "ssrun.options",
        "ssrun.control",
        "ssrun.upgrades",
        "ssrun.interrupts",
        "ssrun.rates",
        "ssrun.segments",
        "ssrun.trace_view",
        "ssrun.live_view",
        "ssrun.commands",
        "ssrun.ports",
        "ssrun.swaps",
        "ssrun.traces",
        "ssrun.process",
        "ssrun.restarts",
        "ssrun.server",
    ),
    *(
        "ssrun.listen",
        "ssrun.link",
        "ssrun.profile",
        "ssrun.reload",
        "ssrun.report",
        "ssrun.access_log",
        "ssrun.tracing",
    ),
    *("ssrun.losses", "ssrun.metrics", "ssrun.metrics_server", "ssrun.serve"),
    *("ssrun.web", "ssrun.check", "ssrun.store", "ssrun.embed", "ssrun.kv", "ssrun.cli"),
)
# What takes long to import; --help and --version must not wait for it.
SLOW = (
    *(
        "asyncio",
        "brotli",
        "concurrent.futures",
        "elftools",
        "lz4",
        "multiprocessing",
        "prometheus_client",
        "pydantic",
        "pyroute2",
    ),
    *("rich.console", "ruamel.yaml", "watchfiles", "wcmatch", "zstandard"),
)
MODULES_MAX = 160  # that --help imports: 141 of them for sscc and 126 for ssrun, Python's own included


def modules() -> dict[str, Path]:
    """All of ours, by name; a package is its __init__."""
    found = {}
    for name, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            words = [name, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


MODULES = modules()


def written(name: str, path: Path) -> Iterator[str]:
    """What a module imports, wherever it does, for type checkers only and lazily too, as absolute names."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy":
            assert isinstance(node.args[0], ast.Constant), f"{path}: lazy() takes a name that can be read here"
            yield str(node.args[0].value)


def imported(name: str, path: Path) -> set[str]:
    """Which of our modules a module imports. Of `a.b.C` that is `a.b`."""
    found = set()
    for target in written(name, path):
        parts = target.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        found.add(next((prefix for prefix in prefixes if prefix in MODULES), ""))
    return found - {"", name}


IMPORTS = {name: imported(name, path) for name, path in MODULES.items()}


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("package", PACKAGES)
def test_each_folder_with_modules_is_a_package(package: str) -> None:
    """Or it would not be installed."""
    folders = {path.parent for path in PACKAGES[package].rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_imports_are_read() -> None:
    """What the other tests go by: relative, in functions, for type checkers, lazy."""
    assert "ssimage.loader" in IMPORTS["sscc.inspect.reader"]
    assert "sscc.errors" in IMPORTS["sscc.sources.walk"]
    assert "sscc.inspect.pcap" in IMPORTS["sscc.cli.commands"]
    assert "ssrun.embed" in IMPORTS["sscc.cli.serving"]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_know_of_each_other_what_is_meant_for_them(package: str) -> None:
    allowed = (package, *MAY_IMPORT[package])
    wrong = {
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        if is_in(name, package)
        for target in targets
        if not any(is_in(target, each) for each in allowed)
    }
    assert wrong == set()


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, perhaps through others: those left when all are taken away that import none."""
    left = {name: set(targets) for name, targets in imports.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        for name in free:
            del left[name]
    return [[name, *sorted(targets & left.keys())] for name, targets in sorted(left.items())]


def test_no_module_is_in_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["a", "b"], ["b", "c"], ["c", "b"]]
    assert circles(IMPORTS) == []


def taken_from_the_core(path: Path) -> set[str]:
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lib"
    }


def test_what_is_taken_from_the_core_is_there() -> None:
    """cffi says so when it is used only: in a branch that is taken seldom, to an operator."""
    names = {name: taken_from_the_core(path) for name, path in MODULES.items()}
    assert "SSI_VERSION" in names["sscc.image.writer"]
    assert {f"{name}: {item}" for name, items in names.items() for item in items if not hasattr(lib, item)} == set()


def rank(name: str, order: tuple[str, ...]) -> int:
    return max((number for number, package in enumerate(order) if is_in(name, package)), key=lambda n: len(order[n]))


@pytest.mark.parametrize("order", [SSCC_ORDER, SSRUN_ORDER], ids=["sscc", "ssrun"])
def test_no_phase_knows_the_next_one(order: tuple[str, ...]) -> None:
    """A module that is in none of the folders has to be given its place."""
    top = order[0]
    assert [name for name in MODULES if is_in(name, top) and rank(name, order) == 0] == [top]
    wrong = {
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        if is_in(name, top)
        for target in targets
        if is_in(target, top) and rank(target, order) > rank(name, order)
    }
    assert wrong == set()


LOADED = """
import sys
from {module} import main
try:
    main(["--help"], prog_name="x")
except SystemExit:
    pass
for name, module in list(sys.modules.items()):
    if type(module).__name__ != "_LazyModule":  # not run yet
        print(name, file=sys.stderr)
"""


@pytest.mark.parametrize("module", ["sscc.cli.commands", "ssrun.cli", "ssrun.kv"])
def test_help_waits_for_nothing_that_takes_long_to_import(module: str) -> None:
    program = LOADED.format(module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--help" in done.stdout
    loaded = done.stderr.split()
    assert module in loaded
    assert [name for name in loaded if any(is_in(name, slow) for slow in SLOW)] == []
    assert len(loaded) < MODULES_MAX
