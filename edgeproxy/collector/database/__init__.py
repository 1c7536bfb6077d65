"""The database of the collector: SQLite or PostgreSQL, its tables, transactions and migrations.

The metadata has every table as soon as anything of this room is imported: a command that knows fewer tables than the
map of personal data would fail when it walks that map.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    if _module.name.endswith("_tables"):
        import_module(f"{__name__}.{_module.name}")
