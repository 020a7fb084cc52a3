"""What the package stands on: ten libraries at most, optional ones asked for late, and nothing that runs what it reads."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST = 10
MODULE = {"scikit-learn": "sklearn", "pyyaml": "yaml", "prometheus-client": "prometheus_client"}
RUN_WHAT_THEY_READ = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
PICKLE_INSIDE = {"torch.load", "torch.save", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
IN_TWO_FILES_AT_MOST = ("transformers", "peft", "datasets")
WITHOUT_PYTORCH = (
    "runtime/", "serve/", "cli.py", "core/rows.py", "core/arrays.py", "bundle/asking.py", "bundle/facts.py", "bundle/refusing.py",
    "data/encode.py", "data/fast_tokens.py", "data/groups.py", "metrics/decide.py", "metrics/one_label.py",
    "metrics/many_labels.py", "metrics/number.py", "metrics/f1.py", "metrics/bins.py",
)  # fmt: skip
"""What a graph is asked with; that nothing which it imports needs PyTorch is shown by tests/runtime/test_without.py."""

Sources = dict[str, ast.Module]


def modules(requirements: list[str]) -> set[str]:
    """The modules of libraries by their requirements: `scikit-learn>=1.5` is `sklearn`."""
    found = [re.match(r"[A-Za-z0-9._-]+", r) for r in requirements]
    return {MODULE.get(m[0].lower(), m[0].lower()) for m in found if m}


def imports(tree: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """(top module, late) of each import; late: inside a function, or for type checking only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0], late
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from imports(node, late or inside or typing)


def calls(tree: ast.AST, function: str) -> Iterator[ast.Call]:
    """The calls of a function by its name as written, or by the last part of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and f".{ast.unparse(node.func)}".endswith(f".{function}"):
            yield node


def test_direct_dependencies_are_few(project: dict[str, Any]) -> None:
    assert len(project["project"]["dependencies"]) <= MOST


def test_every_import_is_a_dependency(project: dict[str, Any], sources: Sources) -> None:
    core = modules(project["project"]["dependencies"]) | sys.stdlib_module_names | {"trainformer"}
    extras = {n: modules(r) for n, r in project["project"]["optional-dependencies"].items() if n not in ("dev", "all")}
    optional = set().union(*extras.values())
    for name, tree in sources.items():
        for module, late in imports(tree):
            assert module in core or module in optional, f"{name} imports {module}, which is no dependency"
            free = module in core or (module in extras["train"] and not name.startswith(WITHOUT_PYTORCH))
            assert free or late, f"{name} imports {module}, which is optional: import it inside the function"


def test_every_dependency_is_imported(project: dict[str, Any], sources: Sources) -> None:
    used = {module for tree in sources.values() for module, _ in imports(tree)}
    assert modules(project["project"]["dependencies"]) - used == set()


def test_a_library_that_changes_often_is_in_two_files_at_most(sources: Sources) -> None:
    for library in IN_TWO_FILES_AT_MOST:
        files = [name for name, tree in sources.items() if any(module == library for module, _ in imports(tree))]
        assert len(files) <= 2, f"{library} is imported in {files}"


def test_nothing_runs_what_it_reads(sources: Sources) -> None:
    for name, tree in sources.items():
        assert not RUN_WHAT_THEY_READ & {module for module, _ in imports(tree)}, f"{name} imports a kind of pickle"
        for function in PICKLE_INSIDE:
            assert not list(calls(tree, function)), f"{name} calls {function}"
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{name} trusts remote code"


def test_an_extra_that_a_message_names_exists(project: dict[str, Any], sources: Sources) -> None:
    extras = {n: modules(r) for n, r in project["project"]["optional-dependencies"].items()}
    for name, tree in sources.items():
        for call in calls(tree, "MissingExtra"):
            package, extra = (ast.literal_eval(argument) for argument in call.args)
            assert package in extras.get(extra, ()), f"{name}: pip install 'trainformer[{extra}]' does not bring {package}"


def test_every_direct_dependency_is_pinned(root: Path, project: dict[str, Any]) -> None:
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (root / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    named = {re.split(r"[\[<>=~!]", r)[0].lower().replace("_", "-") for r in wanted} - {"trainformer"}
    assert named - pins == set()


def test_the_finders_find() -> None:
    tree = ast.parse("import torch\ndef f():\n    import peft\n    torch.load(1)\n")
    assert list(imports(tree)) == [("torch", False), ("peft", True)]
    assert len(list(calls(tree, "torch.load"))) == 1
    assert modules(["scikit-learn>=1.5", "torch>=2.6"]) == {"sklearn", "torch"}
