"""The map of personal data names each column, log field, metric label and Stripe object."""

import re

import sqlalchemy as sa

from edgeproxy.collector.database.marks import CUSTOMER_ID, ID, ImpersonalText, of_customers
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.row_security import PROTECTED
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.exports.files import SCHEMA
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.privacy import coverage, places
from edgeproxy.collector.privacy.data_map import render_page
from edgeproxy.collector.privacy.own_rows import select_own
from edgeproxy.edge.metrics import METRICS
from loadtest.testbed.process import PACKAGE, ROOT

BY_VERSION = {"plan_versions", "price_moves", "directory_outbox"}
"""Tables that name a row's customer only within a text."""


def test_each_text_column_is_on_the_data_map() -> None:
    assert list(coverage.find_gaps()) == []


def test_check_finds_columns_and_tables_without_a_mark() -> None:
    tables = sa.MetaData()
    sa.Table(
        "contacts",
        tables,
        sa.Column("email", sa.Text),
        sa.Column("role", ImpersonalText),
        sa.Column("customer", sa.Text, info=CUSTOMER_ID),
        sa.Column("wrapped", sa.LargeBinary),
        sa.Column("count", sa.Integer, info=CUSTOMER_ID),
        info=of_customers(ID, ""),
    )
    sa.Table("unmarked", tables, sa.Column("count", sa.Integer))
    wrong = "is a text without a mark, or has a mark and is no text"
    assert list(coverage.find_gaps(tables)) == [
        "the mark of contacts does not say for how long it is kept",
        f"the column contacts.email {wrong}",
        f"the column contacts.wrapped {wrong}",
        f"the column contacts.count {wrong}",
        "the table unmarked has no mark",
    ]


def test_tables_with_row_level_security_have_an_owner_on_the_data_map() -> None:
    owned = {table for table, entry in TABLES.items() if entry.owner is not None}
    assert owned == PROTECTED.keys() - BY_VERSION


def test_cleared_columns_are_personal_and_nullable() -> None:
    for table, entry in TABLES.items():
        for name in entry.cleared:
            assert name in entry.personal, (table, name)
            assert table == "customers" or metadata.tables[table].c[name].nullable, (table, name)
        if entry.owner is not None:
            assert isinstance(select_own(table, ["id"], ["name"]), sa.ColumnElement)


def test_data_map_page_is_current() -> None:
    assert (ROOT / "docs/privacy/data-map.md").read_text() == render_page(), "run scripts/data-map"


def test_each_personal_column_is_encrypted_or_has_a_reason() -> None:
    assert "in the clear: None" not in render_page()
    sealed = {f"{table}.{one}" for table, columns in SEALED.items() for one in (*columns.plain, *columns.looked_up)}
    marked = {f"{table}.{one}" for table, entry in TABLES.items() for one in entry.personal}
    assert sealed <= marked, "each encrypted column is personal data"


def test_each_table_and_place_with_personal_data_states_its_retention() -> None:
    assert [name for name, entry in TABLES.items() if entry.personal and not entry.retention] == []
    assert [name for name, place in places.PLACES.items() if not place.retention] == []


def test_fields_of_the_access_log_are_on_the_map() -> None:
    table = (ROOT / "docs/edge/access-log.md").read_text()
    documented = {
        name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == {*places.ACCESS_LOG.names, *places.ACCESS_LOG.impersonal}


def test_columns_of_parquet_files_are_on_the_map() -> None:
    assert set(SCHEMA.names) == {*places.PARQUET.names, *places.PARQUET.impersonal}


def test_no_label_of_a_metric_is_about_a_person() -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels}
    for collector in list(Metrics()._registry._collector_to_names):
        labels |= set(getattr(collector, "_labelnames", ()))
    assert labels <= set(places.METRIC_LABELS.impersonal)


def test_objects_of_stripe_that_are_called_are_on_the_map() -> None:
    called = {
        name
        for file in (PACKAGE / "collector/billing").rglob("*.py")
        for name in re.findall(r'"v1\.([a-z_]+)\.[a-z_.]+"', file.read_text())
    }
    assert called == {*places.STRIPE.names, *places.STRIPE.impersonal}
