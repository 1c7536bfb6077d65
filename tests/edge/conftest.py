"""The barriers for weakly ordered machines. The tests cannot show their effect, only that they do no harm."""

import sys

import pytest


@pytest.fixture(autouse=True)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every module use the barriers if the test has the parameter `armv8`."""
    if getattr(request, "param", "x86-64") == "armv8":
        for name, module in list(sys.modules.items()):
            if name.startswith("edgeproxy.edge.") and hasattr(module, "IS_WEAK"):
                monkeypatch.setattr(module, "IS_WEAK", True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a module's tests with both orders if it sets `BOTH_ORDERS = True`. A test may name its own orders."""
    named = any("order" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if getattr(metafunc.module, "BOTH_ORDERS", False) and not named:
        metafunc.parametrize("order", ["x86-64", "armv8"], indirect=True)
