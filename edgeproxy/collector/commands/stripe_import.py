"""The import of an existing Stripe account, with or without a running collector.

It returns an exit code and a text, as the commands of database.py do.
"""

import time
from pathlib import Path

import orjson

from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError, StripeConfigurationError
from edgeproxy.collector.billing.stripe_import import import_plan, map_file
from edgeproxy.collector.billing.stripe_import.account import StripeAccount, read_account
from edgeproxy.collector.billing.stripe_import.customer_mapping import OurCustomer
from edgeproxy.collector.billing.stripe_import.import_plan import ImportOptions, ImportPlan
from edgeproxy.collector.billing.stripe_import.importer import Importer
from edgeproxy.collector.billing.stripe_import.report import build_report, format_report
from edgeproxy.collector.commands.command_caller import get_command_caller
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.single_runner import try_exclusive
from edgeproxy.config.collector.catalog import find_version_owner, get_plan_name
from edgeproxy.config.collector.settings import CollectorSettings

LOCK = "billing-import"


def import_account(
    settings: CollectorSettings, file: Path | None, options: ImportOptions, *, is_dry: bool, as_json: bool
) -> CommandResult:
    """Import the Stripe account of the configuration, with the operator's mapping file. With `is_dry`, only report."""
    billing = settings.billing
    if billing is None or billing.mode == "off":
        return 1, "nobody is charged: see mode of billing"
    try:
        options = options._replace(rows={} if file is None else _read_map(file))
    except map_file.MapFileError as error:
        return 2, str(error)

    async def work(database: Database) -> str:
        try:
            stripe = Stripe(billing.stripe)
        except StripeConfigurationError as error:
            raise CommandError(str(error)) from None
        try:
            async with try_exclusive(database, LOCK) as is_ours:
                if not is_ours:
                    raise CommandError("another import runs")
                result = await _import(database, stripe, settings, options, file, is_dry=is_dry)
        except map_file.MapFileError as error:
            raise CommandError(str(error)) from None
        except StripeCallError as error:
            raise CommandError(f"Stripe does not do it: {error}; run it again, and it does what is left") from None
        finally:
            await stripe.close()
        report = build_report(result)
        if as_json:
            return orjson.dumps({"dry_run": is_dry, **report}, option=orjson.OPT_INDENT_2).decode()
        return format_report(report, is_dry=is_dry)

    return run_on_database(settings, work)


async def _import(
    database: Database,
    stripe: Stripe,
    settings: CollectorSettings,
    options: ImportOptions,
    file: Path | None,
    *,
    is_dry: bool,
) -> ImportPlan:
    """Read the account, and carry out the plan. Raises MapFileError and StripeCallError."""
    account = await read_account(stripe)
    async with database.reading(whole=True) as connection:
        if file is not None:
            _check_map(options, str(file), account, settings, await import_plan.list_our_customers(connection))
        result = await import_plan.compute_plan(connection, account, settings, options, time.time())
    if is_dry:
        return result
    return await Importer(database, stripe, get_command_caller()).apply(result)


def _check_map(
    options: ImportOptions,
    name: str,
    account: StripeAccount,
    settings: CollectorSettings,
    customers: list[OurCustomer],
) -> None:
    """Raise MapFileError if the file names something that does not exist."""
    products = {price["product"]["id"] for price in account.prices.values()}
    plans = [version for version in settings.plans if find_version_owner(version) is None]
    map_file.check_map(
        options.rows,
        name,
        stripe_customers={customer["id"] for customer in account.customers},
        stripe_prices=account.prices.keys() | products,
        customers={one for ours in customers for one in (ours.id, ours.name, ours.external_id) if one is not None},
        plans=list(dict.fromkeys([*map(get_plan_name, plans), *plans])),
    )


def _read_map(file: Path) -> dict[str, map_file.MapRow]:
    """Read the operator's file. Raises MapFileError."""
    try:
        with file.open("rb") as stream:
            content = stream.read(map_file.BYTES_MAX + 1)
        if len(content) > map_file.BYTES_MAX:
            raise map_file.MapFileError(f"{file} has over {map_file.BYTES_MAX} bytes")
        return map_file.parse_map(content.decode("utf-8-sig"), str(file))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise map_file.MapFileError(f"{file}:{line}: byte {error.start} is no UTF-8") from None
    except OSError as error:
        raise map_file.MapFileError(f"{file} cannot be read: {error.strerror}") from None
