"""Fixtures of the fault suite; the count of faults is printed by ``tests/conftest.py``, which all processes of a test run load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.harness import Forks, Grid, assert_clean, outcomes, write_protocol
from faults.ledger import Ledger


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return Ledger(request.node.user_properties)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two methods, one trained in epochs and one in closed form; two seeds."""
    return Grid(write_protocol(tmp_path_factory.mktemp("protocol")))


@pytest.fixture(scope="session")
def complete(forks: Forks, grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run that nobody disturbs; not to be changed."""
    results = tmp_path_factory.mktemp("undisturbed")
    code, text = forks.run(grid.words(results))
    assert code == 0, text
    assert_clean(results)
    return results


@pytest.fixture(scope="session")
def undisturbed(complete: Path, grid: Grid) -> dict[str, str]:
    """Their outcome digests by cell."""
    found = outcomes(complete)
    assert len(found) == grid.cells
    return found
