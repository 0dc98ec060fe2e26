"""What no linter sees: the core makes no system call, functions stay short, layouts agree."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import lizard
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from ssimage import _sandstorm
from ssimage._sandstorm import ffi

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "runtime" / "csrc"
CORE = [path for name in ("wire", "image", "frames", "libeth", "libtcpip") for path in (CSRC / name).glob("*.c")]
CORE += [CSRC / "stack.c", CSRC / "stack_link.c"]
APPLICATIONS = {name: [*(CSRC / name).glob("*.c")] for name in ("web", "kv")}
ALLOWED = {"memcpy", "memmove", "memset", "memcmp", "memchr", "strlen", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
LINES_MAX = 40  # of a C function
COMPLEXITY_MAX = 15
PYTHON_LINES_MAX = 60


def symbols(path: Path) -> tuple[set[str], set[str]]:
    """Names that an object defines and that it needs."""
    defined, needed = set(), set()
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        for symbol in table.iter_symbols():
            if symbol["st_info"]["bind"] == "STB_GLOBAL":
                (needed if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    return defined, needed


def foreign(sources: list[Path], folder: Path) -> dict[str, set[str]]:
    """What these files need beside each other, and which do."""
    defined: set[str] = set()
    needed: dict[str, set[str]] = {}
    for source in sources:
        target = folder / f"{source.stem}.o"
        # Unoptimized, so that nothing is inlined away or made of builtins; without assertions, as it is installed.
        flags = ["-std=gnu11", "-O0", "-DNDEBUG", f"-I{CSRC}"]
        subprocess.run(["gcc", *flags, "-c", source, "-o", target], check=True)
        mine, others = symbols(target)
        defined |= mine
        for name in others:
            needed.setdefault(name, set()).add(source.name)
    return {name: users for name, users in needed.items() if name not in defined | ALLOWED}


def test_the_core_makes_no_system_call_and_needs_no_application(tmp_path: Path) -> None:
    """No clock, no allocation, no I/O: its objects import nothing but each other and memcpy's kin."""
    assert len(CORE) > 15
    assert foreign(CORE, tmp_path) == {}


@pytest.mark.parametrize("application", APPLICATIONS)
def test_an_application_needs_the_core_alone(application: str, tmp_path: Path) -> None:
    """No system call there either, and nothing of another application."""
    assert foreign([*CORE, *APPLICATIONS[application]], tmp_path) == {}
    others = [name for name in APPLICATIONS if name != application]
    for path in (CSRC / application).glob("*.[ch]"):
        included = re.findall(r'#include "(\w+)/', path.read_text())
        assert not set(included) & set(others), path


def c_functions(text: str) -> list[tuple[str, int]]:
    """Names and lengths of the functions of a formatted C file."""
    found = []
    start, name = None, ""
    for number, line in enumerate(text.splitlines()):
        if start is None and re.match(r"^[a-z].*\)$|^ +.*\)$", line):
            name = line
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            found.append((name, number - start + 1))
            start = None
    return found


def excused(text: str) -> set[str]:
    """Functions whose comment begins a line with a reason to be long (`/* long: ...`)."""
    return set(re.findall(r"^/\* long: .*\*/\n.*?(\w+)\(", text, re.MULTILINE))


def test_c_functions_are_short() -> None:
    """At most so many lines, or a comment says why."""
    for path in CSRC.rglob("*.c"):
        if path.name.endswith(".bpf.c"):  # a program for the kernel's verifier, which wants all inline
            continue
        text = path.read_text()
        functions = c_functions(text)
        assert functions, path
        long = [name for name, lines in functions if lines > LINES_MAX]
        assert [name for name in long if not any(other in name for other in excused(text))] == [], path.name


# A comment directly above a function, or above its decorators: why there are many ways through it.
REASON = re.compile(
    r"^(?:[ \t]*# Complexity: \S[^\n]*\n(?:[ \t]*[#@][^\n]*\n)*|/\* Complexity: \S(?:(?!\*/).)*\*/\n)\Z",
    re.MULTILINE | re.DOTALL,
)


def function_count(path: Path, text: str) -> int:
    """How many functions a file has at least."""
    if path.suffix != ".py":
        return len(c_functions(text))
    return sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(ast.parse(text)))


def tangled(path: Path) -> list[str]:
    """Functions with too many ways through (McCabe's number) that don't say why, and reasons without such a function."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    functions = lizard.analyze_file(str(path)).function_list
    # It may lose its way, as in an assertion with a `<<`, behind which it missed 25 functions: write such a place plainer.
    assert len(functions) >= function_count(path, text), f"{path}: lizard sees {len(functions)} functions only"
    complex_ones = [item for item in functions if item.cyclomatic_complexity > COMPLEXITY_MAX]
    found = [item for item in complex_ones if not REASON.search("".join(lines[: item.start_line - 1]))]
    reasons = len(re.findall(r"^[ \t]*(?:#|/\*) Complexity: ", text, re.MULTILINE)) - (len(complex_ones) - len(found))
    return [f"{item.name}: {item.cyclomatic_complexity}" for item in found] + ["a reason for nothing"] * reasons


@pytest.mark.parametrize("folder", ["compiler", "runtime", "manifests", "tests"])
def test_no_function_is_tangled(folder: str) -> None:
    """Lizard counts each `and`, `or` and loop of a comprehension too, which ruff does not."""
    paths = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".c", ".h")]
    assert paths
    found = {str(path.relative_to(ROOT)): tangled(path) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("name", "above", "ifs", "found"),
    [
        ("x.py", "", 14, []),
        ("x.py", "", 15, ["f: 16"]),
        ("x.py", "# Complexity: a table\n", 15, []),
        ("x.py", "# Complexity: a table\n# of all\n@g\n", 15, []),
        ("x.py", "# Complexity: a table\n\n", 15, ["f: 16", "a reason for nothing"]),
        ("x.py", "# Complexity: \n", 15, ["f: 16", "a reason for nothing"]),
        ("x.py", "# Complexity: a table\n", 14, ["a reason for nothing"]),
        ("x.c", "", 14, []),
        ("x.c", "", 15, ["f: 16"]),
        ("x.c", "/* Complexity: a table\n   of all */\n", 15, []),
        ("x.c", "/* Complexity: a table */\n/* of all */\n", 15, ["f: 16", "a reason for nothing"]),
        ("x.c", "/* Complexity: a table */\n", 14, ["a reason for nothing"]),
    ],
)
def test_ways_through_a_function_are_counted(
    name: str, above: str, ifs: int, found: list[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    if path.suffix == ".py":
        path.write_text(above + "def f(a):\n" + "    if a:\n        a()\n" * (ifs - 1) + "    return a and a\n")
    else:
        body = "    if (a)\n        a--;\n" * (ifs - 1) + "    return a && a;\n"
        path.write_text(above + "static int f(int a)\n{\n" + body + "}\n")
    assert tangled(path) == found


def test_a_function_that_is_not_seen_is_no_simple_one(tmp_path: Path) -> None:
    path = tmp_path / "x.c"
    table = "static const struct {\n    int a;\n} x[1] = {\n    {1},\n};\n"
    path.write_text('_Static_assert(1 <= 1 << 2, "x");\n' + table + "int f(void)\n{\n    return 1;\n}\n")
    with pytest.raises(AssertionError, match="sees 0 functions only"):
        tangled(path)


def python_functions(path: Path) -> list[tuple[str, int]]:
    """Names and lengths of a module's functions, but for those that say why they are longer (`# long: ...`)."""
    text = path.read_text()
    lines = text.splitlines()
    return [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if "# long: " not in lines[node.lineno - 1]
    ]


@pytest.mark.parametrize("folder", ["compiler", "runtime", "manifests", "tests"])
def test_python_functions_are_short_enough_to_see_whole(folder: str) -> None:
    functions = {path: python_functions(path) for path in (ROOT / folder).rglob("*.py")}
    assert any(functions.values())
    long = [(path.name, *function) for path, found in functions.items() for function in found]
    assert [function for function in long if function[-1] > PYTHON_LINES_MAX] == []


def test_headers_say_what_they_are() -> None:
    for path in CSRC.rglob("*.h"):
        assert path.read_text().startswith("/* "), path


def dwarf_structs() -> dict[str, tuple[int, dict[str, int]]]:
    """Sizes and member offsets of structs as the compiler of the extension laid them out."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    with Path(_sandstorm.__file__).open("rb") as file:
        elf = ELFFile(file)
        if not elf.has_dwarf_info():
            pytest.skip("the extension has no debug information")
        for unit in elf.get_dwarf_info().iter_CUs():
            for die in unit.iter_DIEs():
                name = die.attributes.get("DW_AT_name")
                if die.tag != "DW_TAG_structure_type" or name is None or "DW_AT_byte_size" not in die.attributes:
                    continue
                members = {
                    child.attributes["DW_AT_name"].value.decode(): child.attributes[
                        "DW_AT_data_member_location"
                    ].value
                    for child in die.iter_children()
                    if child.tag == "DW_TAG_member"
                    and {"DW_AT_name", "DW_AT_data_member_location"} <= child.attributes.keys()
                }
                found[name.value.decode()] = (die.attributes["DW_AT_byte_size"].value, members)
    return found


def test_tcp_knows_nothing_of_http() -> None:
    """What differs from one response to the next is the application's, whose words of a span are numbers to TCP."""
    words = re.compile(
        r"http|\bweb|etag|last.modified|content.(length|range)|\bssi_(patch|response|variant|route)", re.I
    )
    for path in sorted((CSRC / "libtcpip").iterdir()):
        found = [line for line in path.read_text().splitlines() if words.search(line)]
        assert not found, path.name


def test_a_big_endian_machine_is_refused() -> None:
    """Once, where all files see it, and no code is there for one."""
    flags = ["-xc", "-fsyntax-only", f"-I{CSRC}", "-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"]
    for path in [*CSRC.glob("web/http_parse.c"), *CSRC.glob("libtcpip/segment.c"), *CSRC.glob("image/frame_build.c")]:
        done = subprocess.run(["gcc", *flags, path], capture_output=True, text=True, check=False)
        assert "little-endian machines only" in done.stderr, path.name
    told = [path.name for path in CSRC.rglob("*.[ch]") if "__BYTE_ORDER__" in path.read_text()]
    assert told == ["wire.h"]


@pytest.mark.slow
def test_the_image_s_layout_in_the_extension_is_the_header_s() -> None:
    built = dwarf_structs()
    header = (CSRC / "image" / "image_format.h").read_text()
    names = re.findall(r"^struct (ssi_\w+) \{", header, re.MULTILINE)
    assert len(names) == 9
    for name in names:
        kind = ffi.typeof(f"struct {name}")
        assert kind.fields is not None
        size, members = built[name]
        assert size == ffi.sizeof(kind)
        assert members == {field: item.offset for field, item in kind.fields}
        # No padding: every byte of a struct is somebody's.
        assert sum(ffi.sizeof(item.type) for _, item in kind.fields) == size


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of a machine in what is tracked."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"/(?:root|home/\w+|work/main)/")
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".c", ".h", ".md", ".yaml", ".toml", "") and path.is_file():
            text = path.read_text(errors="replace")
            assert path == Path(__file__) or not pattern.search(text), name
