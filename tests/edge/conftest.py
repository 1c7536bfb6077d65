"""The barriers of machines of weak order: nothing shows here of what they order, but that they harm nothing does."""

import sys

import pytest


@pytest.fixture(autouse=True)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every module use the barriers, where the test is asked for `armv8`."""
    if getattr(request, "param", "x86-64") == "armv8":
        for name, module in list(sys.modules.items()):
            if name.startswith("edgeproxy.edge.") and hasattr(module, "IS_WEAK"):
                monkeypatch.setattr(module, "IS_WEAK", True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask for both orders where the module says so: `BOTH_ORDERS = True`."""
    if getattr(metafunc.module, "BOTH_ORDERS", False):
        metafunc.parametrize("order", ["x86-64", "armv8"], indirect=True)
