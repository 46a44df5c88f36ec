"""The house: packages import downwards only, outside libraries stay on their floors, functions and files stay short."""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stvg_lightning"
MODULES = sorted(PACKAGE.rglob("*.py"))

HOME_OF = {
    "omegaconf": {"cli"},
    "yaml": {"cli"},
    "lightning": {"modules"},
    "matplotlib": {"reports"},
    "jinja2": {"reports"},
    "torchmetrics": {"evaluation"},
    "scipy": {"models", "evaluation"},
    "webdataset": {"data"},
    "av": {"data"},
    "transformers": {"models", "prompting"},
    "sam2": {"prompting"},
    "ultralytics": {"prompting"},
    "peft": {"models"},
    "tokenizers": {"models"},
    "safetensors": {"models"},
    "triton": {"models"},
    "pycocotools": {"tubes"},
    "markupsafe": {"reports"},
    "pyarrow": {"data"},
    "openai": {"rollouts"},
    "rich": {"cli"},
}
"""Outside library -> the packages in which alone it may be imported."""

ANYWHERE = {"torch", "numpy", "PIL", "jaxtyping", "stvg_lightning"}
LONGEST_FUNCTION_LINES = 60
LONGEST_FILE_LINES = 400
MOST_PARAMETERS = 7


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """`(top package, line)` of every import in a file, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module).partition(".")[0], node.lineno


def floor_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def test_packages_import_downwards_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cli = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    code = cli.lint_imports(config_filename="setup.cfg", no_cache=True)
    printed = capsys.readouterr().out
    assert code == cli.EXIT_STATUS_SUCCESS, printed
    assert "A package imports only from lower floors KEPT" in printed


def test_every_package_has_its_floor() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    contract = config["importlinter:contract:floors"]
    named = {name.strip() for line in contract["layers"].splitlines() for name in line.split("|") if name.strip()}
    assert named == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert contract["exhaustive"] == "true"


@pytest.mark.parametrize("library", HOME_OF)
def test_outside_libraries_stay_on_their_floors(library: str) -> None:
    guests = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in MODULES
        for name, line in imports_of(parsed(file))
        if name == library and floor_of(file) not in HOME_OF[library]
    ]
    assert not guests, f"{library} may be imported only in {', '.join(HOME_OF[library])}"


def test_no_other_library_is_imported() -> None:
    known = {*HOME_OF, *ANYWHERE, *sys.stdlib_module_names}
    strangers = {name: file for file in MODULES for name, _ in imports_of(parsed(file)) if name not in known}
    assert not strangers


def test_the_command_line_imports_nothing_heavy_before_it_is_needed() -> None:
    heads = [node for node in parsed(PACKAGE / "cli" / "main.py").body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for node in heads for name, _ in imports_of(node)}
    assert names <= sys.stdlib_module_names


def test_functions_and_files_are_short() -> None:
    long = []
    for file in MODULES:
        where = file.relative_to(ROOT)
        if (num_lines := len(file.read_text().splitlines())) > LONGEST_FILE_LINES:
            long.append(f"{where}: {num_lines} lines")
        for node in ast.walk(parsed(file)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if num_lines > LONGEST_FUNCTION_LINES:
                long.append(f"{where}:{node.lineno} {node.name}: {num_lines} lines")
            arguments = [a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            # Triton's kernels take sizes and strides one by one.
            is_kernel = any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            if len(arguments) > MOST_PARAMETERS and not is_kernel:
                long.append(f"{where}:{node.lineno} {node.name}: {len(arguments)} parameters")
    assert not long, "\n".join(long)


def test_grpo_can_be_read_aloud() -> None:
    assert len((PACKAGE / "modules" / "grpo.py").read_text().splitlines()) <= 250


def test_no_class_of_ours_subclasses_a_concrete_class_of_ours() -> None:
    classes = {node.name: node for file in MODULES for node in ast.walk(parsed(file)) if isinstance(node, ast.ClassDef)}
    abstract = {
        n
        for n, node in classes.items()
        if {"Protocol", "ABC"} & {ast.unparse(base).split("[")[0] for base in node.bases}
    }
    exceptions = {"RecipeError", "RewardError", "UnreadableVideo", "BadSample", "TooManyBadSamples", "NonFiniteLoss"}
    for name, node in classes.items():
        ours = {ast.unparse(base) for base in node.bases} & (classes.keys() - abstract - exceptions)
        assert not ours, f"{name} subclasses {ours}"
