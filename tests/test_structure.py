"""House rules: imports between packages, and where files may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    path.relative_to(ROOT) for folder in (".", "models", "utils", "scripts") for path in (ROOT / folder).glob("*.py")
]
MAY_IMPORT_TRANSFORMERS = {
    "models/encoder.py",
    "utils/tokenizer.py",
    "utils/updater.py",
    "scripts/benchmark_trainer.py",
    "scripts/make_miniature.py",
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_stay_within_their_rooms(path):
    found = imports(path)
    scripts = {name for name in found if name.startswith("run_")}
    if path.parts[0] == "models":
        assert not found & {"utils", "scripts", "stage"} | scripts
    elif path.parts[0] == "utils":
        assert not found & {"models", "scripts", "stage"} | scripts
    elif path.name.startswith("run_"):
        assert not scripts | found & {"scripts"}
    if "transformers" in found:
        assert str(path) in MAY_IMPORT_TRANSFORMERS


def test_the_check_above_sees_the_modules():
    assert {"run_rewinding.py", "models/bert.py", "stage.py"} <= {str(path) for path in MODULES}
    assert "transformers" in imports(Path("models/encoder.py"))


def test_every_file_has_a_line_in_the_docs():
    scripts = [path.relative_to(ROOT) for path in (ROOT / "scripts").glob("*.sh")]
    lines = (ROOT / "docs" / "files.md").read_text().splitlines()
    listed = [line.split("`")[1] for line in lines if line.startswith("| `")]
    files = [path.name for path in [*MODULES, *scripts] if path.name != "__init__.py"]
    assert [name for name in files if listed.count(name) < files.count(name)] == []


def test_no_python_in_datasets():
    assert not list((ROOT / "datasets").rglob("*.py"))
