"""An account in a file: the facts about a customer that edges do not get. `edgeproxy export` writes them."""

from pydantic import Field

from edgeproxy.config.field_types import Name
from edgeproxy.config.part import Part


class Account(Part):
    """A customer's facts that edges do not get. `edgeproxy import` brings them into the database.

    ```yaml
    customers: {acme: {tier: basic}}
    accounts: {acme: {external_id: crm-17, metadata: {plan_owner: Ann}, rotate_every: 90d}}
    ```

    The key is the customer's name in `customers`. `import` checks the values as the API does.
    """

    name: Name | None = Field(
        default=None, description="Name of a customer whose key in `customers` is a [pseudonym](privacy.md#pseudonyms)."
    )
    external_id: str | None = Field(default=None, description="Id of the customer in another system.")
    metadata: dict[str, str] = Field(default={}, description="Your own texts, by name.")
    rotate_every: str | None = Field(
        default=None, description="Age that makes a key due for rotation, such as `90d`. By default keys are never due."
    )
