"""The structure of the package: imports between files, and names that hide modules."""

import ast
import types
from pathlib import Path

import minaxis

ROOT = Path(minaxis.__file__).parent


def modules():
    """Name -> path of every module of the package."""
    return {
        ".".join(("minaxis", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }


def imports():
    """Module -> the modules of the package that it imports, inside functions too."""
    names = modules()
    imported = {}
    for name, path in names.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minaxis"):
                targets |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Import):
                targets |= {a.name for a in node.names}
        imported[name] = targets & names.keys()
    return imported


def test_no_two_files_import_each_other_directly_or_through_other_files():
    graph, finished = imports(), set()
    assert graph["minaxis.rollouts"] >= {"minaxis.generation", "minaxis.hooks"}

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            finished.add(name)

    for name in graph:
        visit(name, [])


def test_the_axis_does_not_import_code_that_collects_rollouts():
    graph = imports()
    reached, todo = set(), ["minaxis.axis"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += graph[name]
    assert not reached & {"minaxis.rollouts", "minaxis.generation", "minaxis.judging"}


def test_no_function_hides_a_module_of_the_same_name():
    for name in modules():
        package, _, module = name.rpartition(".")
        owner = __import__(package, fromlist=["x"])
        value = getattr(owner, module, None)
        assert value is None or isinstance(value, types.ModuleType), name
