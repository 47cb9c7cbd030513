"""The house stays one that a newcomer finds the way in: few rooms, small modules."""

import tomllib
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "src" / "pgresults"
MODULES = [path for path in HOUSE.rglob("*.py") if "__pycache__" not in path.parts]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_entrance_fits_a_screen() -> None:
    beside = [path for path in HOUSE.glob("*.py") if path.name != "__init__.py"]
    rooms = [path for path in HOUSE.iterdir() if (path / "__init__.py").exists()]
    assert len(beside) <= 12
    assert len(beside) + len(rooms) <= 30


def test_the_rooms_are_layers_on_few_floors() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert len(layers) <= 16
    assert all("ignore_imports" not in contract for contract in contracts if contract["type"] != "forbidden")


def test_modules_are_short() -> None:
    assert median(map(lines, MODULES)) < 200
    assert [path for path in MODULES if lines(path) > 500] == []
    assert [path for path in (ROOT / "tests").rglob("*.py") if lines(path) > 500] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [path for path in MODULES if not path.read_text().startswith('"""')] == []
