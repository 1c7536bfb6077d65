"""Names of limits."""


def names(limits):
    return [limit.name for limit in limits]


def test_limits_are_called_after_their_tier(loaded):
    settings = loaded(
        "tiers:\n  basic: {limits: [{rate: 1/s}, {rate: 2/min}, {name: own, rate: 3/h}, {rate: 4/day}]}\n"
        "customers:\n  acme: {tier: basic, limits: [{rate: 9/s}, {rate: 9/min}]}\n  plain: {tier: basic}\n"
    )
    assert names(settings.tiers["basic"].limits) == ["basic", "basic-2", "own", "basic-4"]
    assert names(settings.customers["acme"].limits) == ["basic", "basic-2"]
    assert settings.customers["plain"].limits is None


def test_a_long_name_makes_room_for_the_number(loaded):
    tier = "t" * 64
    settings = loaded(f"tiers:\n  {tier}: {{limits: [{{rate: 1/s}}, {{rate: 2/min}}]}}\n")
    assert names(settings.tiers[tier].limits) == [tier, "t" * 62 + "-2"]


def test_the_name_of_a_tier_is_complained_of_once(problems):
    from tests.config.conftest import LEAST

    found = problems(LEAST + "customers:\n  a: {tier: '-', limits: [{rate: 1/s}]}\n  b: {limits: [{rate: 1/s}]}\n")
    assert [line.split(", ")[0] for line in found] == [
        "edge.yaml:4: customers.a.tier: '-' is not a name",
        "edge.yaml:5: customers.b.tier: is missing",
    ]
