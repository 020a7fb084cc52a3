"""The limits of size and name. Where one is in the way, change it here in the same commit and say why."""

import ast
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 300
OTHER_FILE_LINES = {"engine/engine.py": 400, "cli.py": 330, "core/roles.py": 330, "tasks/": 150, "methods/": 120}
"""The loop and the vocabulary are read as one page each; a verb costs a line a flag; a task and a method are leaves."""
FUNCTION_LINES, FUNCTION_LINES_P90, ARGUMENTS = 50, 25, 6
VERBS = ("cli.py train", "cli.py check", "models/verbs.py evaluate", "cli.py predict", "studies/verbs.py search",
         "compress/verbs.py compress", "compress/verbs.py export", "serve/verbs.py serve", "models/verbs.py translate",
         "models/verbs.py generate", "data/verbs.py train")  # fmt: skip
CALLED_BY_OTHERS = {"nn/packed_attention.py packed_attention", *VERBS}
"""The transformers library decides how its attention functions are called; a verb of the command line has an argument a flag."""
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}

Sources = dict[str, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(sources: Sources) -> Iterator[tuple[str, Function]]:
    """(place, function) for each function and method, inner ones too."""
    for name, tree in sources.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}:{node.lineno} {node.name}", node


def lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def arguments(function: Function) -> int:
    """How many a caller may give; `self` and `cls` are not counted, `*args` and `**kwargs` are one each."""
    given = function.args
    named = [a.arg for a in (*given.posonlyargs, *given.args)]
    bound = named[:1] in (["self"], ["cls"])
    return len(named) - bound + len(given.kwonlyargs) + (given.vararg is not None) + (given.kwarg is not None)


def limit(name: str) -> int:
    return next((n for start, n in OTHER_FILE_LINES.items() if name.startswith(start)), FILE_LINES)


def test_files_are_short(root: Path, sources: Sources) -> None:
    counted = {name: len((root / "src/trainformer" / name).read_text(encoding="utf-8").splitlines()) for name in sources}
    assert [f"{name}: {n} lines, at most {limit(name)}" for name, n in counted.items() if n > limit(name)] == []


def test_functions_are_short(sources: Sources) -> None:
    assert [f"{place}: {lines(f)} lines" for place, f in functions(sources) if lines(f) > FUNCTION_LINES] == []


def test_nine_functions_in_ten_are_very_short(sources: Sources) -> None:
    ordered = sorted(lines(f) for _, f in functions(sources))
    assert ordered[int(0.9 * len(ordered))] <= FUNCTION_LINES_P90


def test_functions_take_few_arguments(sources: Sources) -> None:
    own = [(place, f) for place, f in functions(sources) if f"{place.split(':')[0]} {f.name}" not in CALLED_BY_OTHERS]
    assert [f"{place}: {arguments(f)} arguments" for place, f in own if arguments(f) > ARGUMENTS] == []


def test_every_file_says_what_it_is_for(sources: Sources) -> None:
    silent = [name for name, tree in sources.items() if not ast.get_docstring(tree) or tree.body[0].lineno != 1]
    assert silent == [], "the first line of a file is a docstring"


def test_every_name_says_something(sources: Sources) -> None:
    assert [name for name in sources if EMPTY_WORDS & set(name.removesuffix(".py").replace("_", "/").split("/"))] == []


def test_the_measures_measure() -> None:
    tree = ast.parse("class A:\n    def f(self, a, /, b, *c, d, **e):\n        return [\n            a]\n")
    ((place, found),) = functions({"tasks/a.py": tree})
    assert (place, lines(found), arguments(found)) == ("tasks/a.py:2 f", 3, 5)
    assert (limit("tasks/a.py"), limit("engine/engine.py"), limit("engine/optim.py")) == (150, 400, 300)
