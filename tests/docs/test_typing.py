"""The types that users see: type checkers understand a sample of what users write."""

import subprocess
import sys
from pathlib import Path

import pytest

_SAMPLE = Path(__file__).parent / "typed_sample.py"


@pytest.mark.parametrize(
    "checker", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=lambda command: command[0]
)
def test_the_sample_is_understood(checker: list[str], tmp_path: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", *checker, str(_SAMPLE)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
