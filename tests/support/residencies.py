"""Residencies as an edge.yaml has them."""

KEYS = (
    "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
)


def one(number: int, more: str = "", usage: str = "", directory: str = "") -> str:
    return (
        f"{{{more} usage: {{collector: 'http://127.0.0.1:{number + 1}'{usage}}}, "
        f"directory: {{from: collector, trust: '{KEYS[number]}'{directory}}}}}"
    )


HOME = one(0, "home: true,")
TWO = f"residency: {{eu: {HOME}, us: {one(1)}}}"
