"""The problems of customers, keys and other objects of accounts."""

from typing import Final

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.languages.marks import N_

CUSTOMER_NOT_FOUND: Final = ProblemCode(
    "customer-not-found",
    404,
    "There is no such customer.",
    "Name it by its name, pseudonym, id or external id; `GET /v1/customers` lists all.",
    N_("There is no such customer."),
)
CUSTOMER_MISSING: Final = ProblemCode(
    "customer-missing", 422, "The request names no customer.", "Add `?customer=NAME`.", N_("There is no such customer.")
)
CUSTOMER_EXISTS: Final = ProblemCode(
    "customer-exists",
    409,
    "There is a customer with this name.",
    "Choose another name, or change that customer.",
    N_("There is a customer of this name already."),
)
EXTERNAL_ID_EXISTS: Final = ProblemCode(
    "external-id-exists",
    409,
    "There is a customer with this `external_id`.",
    "Choose another id, or change that customer.",
    N_("Another customer has this external id."),
)
CUSTOMER_DELETING: Final = ProblemCode(
    "customer-deleting",
    409,
    "The customer is being deleted.",
    "Take the deletion back first.",
    N_("The customer is being deleted."),
)
CUSTOMER_NOT_DELETING: Final = ProblemCode(
    "customer-not-deleting",
    409,
    "The customer is not being deleted.",
    "No step is needed.",
    N_("The customer is not being deleted."),
)
CUSTOMER_ERASED: Final = ProblemCode(
    "customer-erased",
    409,
    "The customer is deleted: its keys and settings are gone.",
    "Create a new customer.",
    N_("The customer is erased: keys and settings are gone."),
)
CUSTOMER_MOVING: Final = ProblemCode(
    "customer-moving",
    409,
    "The customer is on its way to another residency, or from one.",
    "End or withdraw the move first.",
    N_("The account is being moved between regions. Try again once the move is over."),
)
CUSTOMER_MOVED: Final = ProblemCode(
    "customer-moved",
    409,
    "The customer has moved to another residency.",
    "Make the change at the collector of that residency.",
    N_("The account is in another region now. Change it there."),
)
CUSTOMER_STATE: Final = ProblemCode(
    "customer-state",
    409,
    "The customer's state does not permit the change.",
    "Read its `state`.",
    N_("That cannot be done with the customer as it is now."),
    has_reason=True,
)
TIER_NOT_CONFIGURED: Final = ProblemCode(
    "tier-not-configured",
    409,
    "The collector's file has no tier of the customer's.",
    "Add the tier to `tiers` of the collector's file.",
    N_("The provider's file lacks the customer's tier %(tier)s."),
)
LAST_OWNER: Final = ProblemCode(
    "last-owner",
    409,
    "A customer keeps at least one owner.",
    "Make another contact an owner first.",
    N_("Somebody has to stay an owner. Make somebody else an owner first."),
)
DOWNLOAD_TOO_LARGE: Final = ProblemCode(
    "download-too-large",
    409,
    "The data is too large for a download.",
    "Have an operator send it.",
    N_("It is too large for a download: ask your provider for it."),
)
PRIVACY_REQUEST_NOT_FOUND: Final = ProblemCode(
    "privacy-request-not-found",
    404,
    "There is no such request of a person.",
    "Read the list of the requests.",
    N_("There is no such request."),
)
PRIVACY_REQUEST_STATE: Final = ProblemCode(
    "privacy-request-state",
    409,
    "The request's state does not permit the step.",
    "Read its `state`.",
    N_("That cannot be done with the request as it is now."),
    has_reason=True,
)
PRIVACY_STEPS_FULL: Final = ProblemCode(
    "privacy-steps-full",
    409,
    "The request has as many steps as there may be.",
    "End it: the last step is always possible.",
    N_("The request has as many steps as there may be. It can only be ended now."),
)
KEY_NOT_FOUND: Final = ProblemCode(
    "key-not-found", 404, "There is no such key.", "Read the customer's keys.", N_("There is no such key.")
)
KEY_STATE: Final = ProblemCode(
    "key-state",
    409,
    "The key's state does not permit the change.",
    "Read its `state`.",
    N_("That cannot be done with the key as it is now."),
    has_reason=True,
)
KEY_ENDED: Final = ProblemCode(
    "key-ended", 409, "The key is revoked or expired.", "Make a new key.", N_("The key has ended: make a new one.")
)
KEY_NOT_RESTORABLE: Final = ProblemCode(
    "key-not-restorable",
    409,
    "The revocation of the key cannot be undone.",
    "Make a new key.",
    N_("The revocation of this key cannot be undone."),
    has_reason=True,
)
KEY_ROTATED: Final = ProblemCode(
    "key-rotated",
    409,
    "The key has a successor already.",
    "Use the successor that `detail` names.",
    N_("The key has been rotated already."),
)
KEY_REVOKED: Final = ProblemCode(
    "key-revoked",
    409,
    "The key is revoked already.",
    "No step is needed.",
    N_("The key is revoked already."),
)
KEY_EXISTS: Final = ProblemCode(
    "key-exists", 409, "There is a key with this `sha256`.", "Make a new key.", N_("There is a key like this already.")
)
KEYS_FULL: Final = ProblemCode(
    "keys-full",
    409,
    "The customer has as many keys as there may be.",
    "Revoke one first.",
    N_("The customer has %(count)s keys, as many as there may be. Revoke one first."),
)
WITHDRAWN_KEYS_FULL: Final = ProblemCode(
    "withdrawn-keys-full",
    409,
    "Too many keys of the customer were withdrawn within a day.",
    "Have an operator look at the delivery of keys.",
    N_("The customer has too many new keys today. Try again tomorrow."),
)
ALERT_NOT_FOUND: Final = ProblemCode(
    "alert-not-found", 404, "There is no such alert.", "Read the list of the alerts.", N_("There is no such alert.")
)
ALERT_ACKNOWLEDGED: Final = ProblemCode(
    "alert-acknowledged",
    409,
    "The alert is acknowledged already.",
    "No step is needed.",
    N_("%(who)s has acknowledged it already."),
)
ALERT_NOT_GIVEN_UP: Final = ProblemCode(
    "alert-not-given-up",
    409,
    "No delivery of the alert was given up on this channel.",
    "Name a channel whose delivery has ended without success.",
    N_("No delivery of this alert was given up."),
    has_reason=True,
)
FLAG_NOT_FOUND: Final = ProblemCode("flag-not-found", 404, "There is no such flag.", "Read the list of the flags.")
FLAG_INVALID: Final = ProblemCode(
    "flag-invalid", 422, "A flag cannot have this name.", "Write a name of 1 to 64 letters, digits, `-` or `_`."
)
FLAG_RESERVED: Final = ProblemCode("flag-reserved", 409, "The collector uses this flag itself.", "Choose another name.")
FLAGS_FULL: Final = ProblemCode("flags-full", 409, "There are as many flags as there may be.", "Delete one first.")
TOKEN_NOT_FOUND: Final = ProblemCode(
    "token-not-found", 404, "There is no such token.", "Read the list of the tokens.", N_("There is no such token.")
)
TOKEN_EXISTS: Final = ProblemCode(
    "token-exists",
    409,
    "There is a token with this name.",
    "Choose another name.",
    N_("There is a token %(name)s already."),
)
TOKEN_EXPIRED: Final = ProblemCode(
    "token-expired", 409, "The token has expired.", "Make a new token.", N_("The token has expired. Make a new one.")
)
TOKENS_FULL: Final = ProblemCode(
    "tokens-full",
    409,
    "There are as many tokens as there may be.",
    "Revoke one first.",
    N_("There are as many tokens as there may be. Revoke one first."),
)
TOKEN_SECRETS_FULL: Final = ProblemCode(
    "token-secrets-full",
    409,
    "The token has as many secrets as there may be.",
    "Send `overlap: 0s`, and its other secrets end.",
    N_("The token has as many secrets as there may be."),
)
WEBHOOK_NOT_FOUND: Final = ProblemCode(
    "webhook-not-found",
    404,
    "The customer has no such webhook endpoint.",
    "Read the list of its endpoints.",
    N_("There is no such webhook."),
)
WEBHOOK_DISABLED: Final = ProblemCode(
    "webhook-disabled",
    409,
    "The webhook endpoint is disabled.",
    "Enable it first.",
    N_("The webhook is disabled. Enable it first."),
)
WEBHOOKS_FULL: Final = ProblemCode(
    "webhooks-full",
    409,
    "The customer has as many webhook endpoints as there may be.",
    "Delete one first.",
    N_("There are as many webhooks as there may be. Delete one first."),
)
WEBHOOK_MESSAGE_NOT_FOUND: Final = ProblemCode(
    "webhook-message-not-found",
    404,
    "There is no such message of this endpoint.",
    "Read the list of its deliveries.",
    N_("There is no such message."),
)
WEBHOOK_MESSAGE_SENDING: Final = ProblemCode(
    "webhook-message-sending",
    409,
    "The message is on its way.",
    "Wait for the result.",
    N_("The message is on its way already."),
)
METER_NOT_FOUND: Final = ProblemCode(
    "meter-not-found",
    404,
    "There is no such meter here.",
    "Read the customer's quotas or plan.",
    N_("There is no such meter."),
)
ITEM_INVALID: Final = ProblemCode(
    "item-invalid",
    422,
    "The id of an item has other characters, or too many.",
    "Write 1 to 200 visible ASCII characters without `/`.",
)
QUOTA_FULL: Final = ProblemCode(
    "quota-full",
    409,
    "All units of the quota are taken. `used` and `allowed` have the numbers.",
    "Release items, or raise the quota.",
)
