"""All commands of `edgeproxy`, in the order of `--help`. Each command's imports happen when it is called, because
health checks call one every second.
"""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated

import typer
from typer._click.core import Command, Context  # The types of TyperGroup's methods.
from typer.core import TyperGroup

from edgeproxy.cli.outcome import fail

COMMANDS = {
    "edge": "serve.edge",
    "quick": "serve.quick",
    "demo": "demonstration.demo",
    "collector": "serve.collector",
    "regions": "serve.regions",
    "stripe-sandbox": "sandbox.stripe_sandbox",
    "verify": "ledger.verify",
    "backup": "ledger.backup",
    "sign-in": "pages.sign_in",
    "init": "starter.init",
    "check": "configuration.check",
    "schema": "configuration.schema",
    "status": "running.status",
    "limits": "running.limits",
    "probe": "running.probe",
    "import": "transfer.import_customers",
    "export": "transfer.export",
}
"""Commands, and the function of each in a module of this package."""

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "key": ("API keys for files.", {"add": "keys.add"}),
    "usage": (
        "Usage that models' answers state.",
        {"explain": "model_usage.explain", "dialects": "model_usage.dialects"},
    ),
    "spool": (
        "Sealed usage that waits for the collector.",
        {
            "ls": "spool.ls",
            "verify": "spool.verify",
            "adopt": "spool.adopt",
            "show": "spool.show",
            "discard": "spool.discard",
        },
    ),
    "quarantine": (
        "Batches that a collector could not read.",
        {"ls": "ledger.quarantine_ls", "show": "ledger.quarantine_show", "replay": "ledger.quarantine_replay"},
    ),
    "database": (
        "A collector's database.",
        {
            "migrate": "database.migrate",
            "downgrade": "database.downgrade",
            "rights": "database.rights",
            "copy": "database.copy",
        },
    ),
    "directory": (
        "Customers and keys for all edges, in the hub or the collector.",
        {"push": "directory.push", "keygen": "directory.keygen", "back": "directory.sign_rollback"},
    ),
    "hub": (
        "Functions of the hub.",
        {"load": "hub.load", "functions": "hub.functions"},
    ),
    "customers": (
        "Customers of a collector, by its API.",
        {
            "ls": "accounts.customers_ls",
            "show": "accounts.customers_show",
            "add": "accounts.customers_add",
            "change": "accounts.customers_change",
            "pause": "accounts.customers_pause",
            "resume": "accounts.customers_resume",
            "raise-limit": "accounts.customers_raise_limit",
            "show-raise": "accounts.customers_show_raise",
            "end-raise": "accounts.customers_end_raise",
            "delete": "accounts.customers_delete",
            "name": "accounts.customers_name",
        },
    ),
    "keys": (
        "Keys of these customers.",
        {
            "ls": "accounts.keys_ls",
            "show": "accounts.keys_show",
            "add": "accounts.keys_add",
            "budget": "accounts.keys_budget",
            "budgets": "accounts.keys_budgets",
            "rotate": "accounts.keys_rotate",
            "rotation": "accounts.keys_rotation",
            "public-key": "accounts.keys_public_key",
            "revoke": "accounts.keys_revoke",
            "restore": "accounts.keys_restore",
            "leaked": "accounts.keys_leaked",
        },
    ),
    "tokens": (
        "Tokens of a collector.",
        {
            "ls": "accounts.tokens_ls",
            "add": "accounts.tokens_add",
            "rotate": "accounts.tokens_rotate",
            "revoke": "accounts.tokens_revoke",
        },
    ),
    "webhooks": (
        "Customers' own webhooks.",
        {
            "ls": "webhooks.webhooks_ls",
            "show": "webhooks.webhooks_show",
            "add": "webhooks.webhooks_add",
            "delete": "webhooks.webhooks_delete",
            "disable": "webhooks.webhooks_disable",
            "enable": "webhooks.webhooks_enable",
            "rotate": "webhooks.webhooks_rotate",
            "test": "webhooks.webhooks_test",
            "messages": "webhooks.webhooks_messages",
            "redeliver": "webhooks.webhooks_redeliver",
        },
    ),
    "encryption": (
        "Encryption of personal data at rest.",
        {"status": "encryption.status", "rows": "encryption.rows", "rotate": "encryption.rotate"},
    ),
    "privacy": (
        "Personal data of customers.",
        {
            "books": "privacy.books",
            "erase": "privacy.erase",
            "export": "privacy.export",
            "map": "privacy.show_map",
            "requests": "privacy.requests",
            "stripe": "privacy.stripe",
        },
    ),
    "residency": (
        "Customers of several residencies.",
        {"move": "residency.move", "moves": "residency.moves"},
    ),
    "alerts": (
        "Alerts of a collector, and where they went.",
        {"ls": "alerts.alerts_ls", "replay": "alerts.alerts_replay"},
    ),
    "jobs": ("Periodic work of a collector.", {"ls": "jobs.jobs_ls"}),
    "anomalies": ("Usage that is out of the ordinary.", {"replay": "anomalies.anomalies_replay"}),
    "plans": (
        "Plans that are sold, and changes of their prices.",
        {
            "apply": "plans.apply",
            "ls": "plans.ls",
            "show": "plans.show_change",
            "withdraw": "plans.withdraw",
            "versions": "plans.versions",
        },
    ),
    "subscriptions": (
        "Plans that customers have, and their quantities.",
        {
            "show": "subscriptions.show_subscription",
            "add": "subscriptions.add",
            "change": "subscriptions.change",
            "keep": "subscriptions.keep",
            "end": "subscriptions.end",
        },
    ),
    "billing": (
        "What usage costs, who is charged for it, and who has paid.",
        {
            "rate": "billing.rate",
            "close": "invoicing.close",
            "invoices": "invoicing.invoices",
            "sync": "invoicing.sync",
            "import": "invoicing.import_account",
            "recover": "invoicing.recover",
            "reconcile": "invoicing.reconcile",
            "rollout": "billing_delivery.rollout",
            "stop": "billing_delivery.stop",
            "resume": "billing_delivery.resume",
            "reconciliation": "billing_delivery.reconciliation",
            "report": "billing_delivery.report",
            "webhooks": "billing_delivery.webhooks",
            "replay": "billing_delivery.replay",
            "accounting": "books.accounting",
            "explain": "corrections.explain",
            "credit-note": "corrections.credit_note",
            "settle": "corrections.settle",
            "write-off": "corrections.write_off",
            "void": "corrections.void",
            "hold": "corrections.hold",
            "accept": "corrections.accept",
            "gift": "corrections.gift",
            "withdraw": "corrections.withdraw",
            "consumptions": "corrections.consumptions",
            "reverse": "corrections.reverse",
            "refund": "corrections.refund",
        },
    ),
}
"""Groups of commands: a description, and the function of each command."""


class LazyGroup(TyperGroup):
    """The group of all commands, each created on demand."""

    def list_commands(self, ctx: Context) -> list[str]:
        """List the names of all commands."""
        return [*COMMANDS, *GROUPS]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Return a command, or None."""
        if cmd_name not in COMMANDS and cmd_name not in GROUPS:
            self.load_all()  # An error about an unknown command lists all commands.
        elif cmd_name not in self.commands:
            self.commands[cmd_name] = _build_command(cmd_name)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Context) -> object:
        """Run a command. If it cannot write an argument, because that is no UTF-8, it ends with 2."""
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError:
            fail("an argument is no UTF-8", 2)

    def load_all(self) -> None:
        """Create all commands."""
        for name in (*COMMANDS, *GROUPS):
            if name not in self.commands:
                self.commands[name] = _build_command(name)


@cache
def _build_command(name: str) -> Command:
    """Build a command, or a group of commands, once in a process: tests run many commands in one."""
    if name in COMMANDS:
        single = typer.Typer(add_completion=False)
        single.command(name)(_import_function(COMMANDS[name]))
        return typer.main.get_command(single)
    about, functions = GROUPS[name]
    group = typer.Typer(name=name, help=about, no_args_is_help=True, add_completion=False)
    group.callback()(_no_options)
    for each, function in functions.items():
        group.command(each)(_import_function(function))
    return typer.main.get_command(group)


def _import_function(place: str) -> Callable[..., None]:
    module, _, name = place.partition(".")
    function: Callable[..., None] = getattr(importlib.import_module(f"edgeproxy.cli.{module}"), name)
    return function


def _no_options() -> None:
    pass


app = typer.Typer(
    name="edgeproxy",
    cls=LazyGroup,
    help="An HTTP edge proxy that knows customers by API key, limits them by tier and counts every request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from edgeproxy import __version__
        from edgeproxy.base.build import describe_build

        typer.echo(f"edgeproxy {__version__} ({describe_build()})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command `edgeproxy`. If a package of collectors is missing, it names the package and ends with 2."""
    try:
        app(prog_name="edgeproxy")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "edgeproxy"):
            raise
        # The sandbox is in no package index, so an attacker could register its name there.
        file = "stripe_sandbox-….whl" if package == "stripe_sandbox" else "'edgeproxy[collector]'"
        typer.echo(f"This command needs {package}, which is not installed: pip install {file}", err=True)
        sys.exit(2)
