"""Residencies: the collectors of an edge's customers, if their data must be in one of several places."""

from pydantic import Field

from edgeproxy.config.edge.directory_settings import Directory
from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.field_types import Switch
from edgeproxy.config.part import Part


class Residency(Part):
    """A place for the data of some customers: one collector, with its database, bucket and Stripe account.

    ```yaml
    residency:
      eu:
        home: true
        usage: {collector: "https://eu.example.com:9100", token: "${EU_TOKEN:-}"}
        directory: {from: collector, trust: "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}
      us:
        usage: {collector: "https://us.example.com:9100", token: "${US_TOKEN:-}"}
        directory: {from: collector, trust: "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="}
    ```

    A customer is in the directory of one residency. Its usage is shipped there, in a separate chain of batches.
    """

    home: Switch = Field(
        default=False,
        description="Makes this the edge's own residency. Its collector gets the usage of customers in files, of "
        "requests without a key, and the traffic reports. Exactly one residency has it, for as long as the state "
        "directory lives.",
    )
    usage: Usage = Field(description="Collector of the residency, in the form of [`usage`](#usage).")
    directory: Directory = Field(
        description="Directory of the residency, in the form of [`directory`](#directory): `from: collector`, with a "
        "key in `trust` that no other residency has. `ttl` and `revoked` are taken from the edge's own residency."
    )


def find_home(residencies: dict[str, Residency]) -> str | None:
    """Return the name of the edge's own residency. None: residencies are not configured."""
    return next((name for name, residency in residencies.items() if residency.home), None)
