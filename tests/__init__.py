"""Tests, in rooms like those of the sources. What tests share is in ``support``, fixtures are in ``conftest``."""
