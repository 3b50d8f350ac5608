"""The direction of imports, and that no file imports in a circle."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each line may import from itself and from the lines above it.
LAYERS = [
    ["errors", "files", "devices", "paths", "plugins", "quantities", "costs", "progress"],
    ["recipe"],
    ["weights", "elastic"],
    ["tracing", "calibration"],
    ["cost", "data"],
    ["tasks"],
    ["evaluation"],
    ["search"],
    ["front"],
    ["policies"],
    ["training"],
    ["run"],
    ["showing"],
    ["launch", "jobs", "deploy"],
    ["cli"],
]


@cache
def modules(package: str) -> dict[str, set[str]]:
    """Every module of a package, with the modules of the project that it imports."""
    found = {}
    root = ROOT / "pipeline" if package == "paretopath" else ROOT
    for file in sorted((root / package).rglob("*.py*")):
        if file.suffix in (".py", ".pyi"):  # a stub lists what its package imports when asked
            name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            found.setdefault(name, set()).update(imports(name, ast.parse(file.read_text())))
    return found


def imports(package: str, tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{package}.{node.module}" if node.level else node.module  # stubs' alone
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("paretopath", "search_spaces")}


def test_each_part_imports_only_what_stands_before_it() -> None:
    order = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    wrong = []
    for module, imported in modules("paretopath").items():
        if module == "paretopath":
            continue
        part = module.split(".")[1]
        assert part in order, f"{part} has no place in the order of imports"
        for name in imported:
            other = name.split(".")[1] if "." in name else None
            if other is not None and order[other] > order[part]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_the_engine_imports_no_model_family() -> None:
    for module, imported in modules("paretopath").items():
        assert not [name for name in imported if name.startswith("search_spaces")], module


def test_families_do_not_import_jobs_or_the_command_line() -> None:
    allowed = {"elastic", "paths", "errors", "weights", "tracing", "files"}
    for module, imported in modules("search_spaces").items():
        # what a detector takes and gives is its contract with the task
        others = {n for n in imported if not n.startswith("paretopath.tasks.detection.objects")}
        parts = {n.split(".")[1] for n in others if n.startswith("paretopath.")}
        assert parts <= allowed, (module, parts - allowed)


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {**modules("paretopath"), **modules("search_spaces")}
    edges = {m: {i for i in imported if i in graph and i != m} for m, imported in graph.items()}
    # a package's __init__ gathers its own files; they are not its users
    edges = {m: {i for i in to if not m.startswith(i + ".")} for m, to in edges.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_the_tracking_process_imports_no_slow_library() -> None:
    code = "import sys, paretopath.showing.tracking.session; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "optuna", "pandas", "sqlalchemy"} & set(done.stdout.split())


def test_reading_a_recipe_imports_no_slow_library() -> None:
    code = (
        "import sys; from paretopath.recipe import load_recipe; "
        "load_recipe('recipes/segformer_camvid.yaml'); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "paretopath.tasks.segmentation.section" in done.stdout.split()
    assert not {"torch", "torchvision", "numpy", "optuna", "datasets"} & set(done.stdout.split())


@pytest.mark.parametrize("command", ["search", "profile"])
def test_a_mistake_in_a_recipe_is_told_before_a_slow_library_is_imported(
    command: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "typo.yaml"
    recipe.write_text("name: toy\nspace: {name: vit}\ntask: {name: segmention}\n")
    code = (
        "import sys; from paretopath.cli.app import app; from paretopath.errors import RecipeError"
        f"\ntry: app(['{command}', {str(recipe)!r}])"
        "\nexcept RecipeError as error: print(error, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean 'segmentation'?" in done.stdout
    assert not {"torch", "optuna", "pandas"} & set(done.stdout.split())


def test_every_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=\[]", line)[0].lower() for line in project["dependencies"]}
    imported = {
        name.split(".")[0]
        for root in ("pipeline/paretopath", "search_spaces")
        for file in (ROOT / root).rglob("*.py")
        for name in re.findall(r"^ *(?:import|from) ([\w.]+)", file.read_text(), re.MULTILINE)
    }
    brought = packages_distributions()
    used = {d.lower().replace("_", "-") for name in imported for d in brought.get(name, ())}
    assert wanted <= used, wanted - used
