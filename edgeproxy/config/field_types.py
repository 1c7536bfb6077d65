"""Types of fields that many models have: each reads the written form and gives the plain value."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from edgeproxy.config import addresses, parsers, units

Name = Annotated[str, BeforeValidator(parsers.read_name)]
ResidencyName = Annotated[str, BeforeValidator(parsers.read_residency)]
DimensionName = Annotated[str, BeforeValidator(parsers.read_dimension_name)]
DimensionValue = Annotated[str, BeforeValidator(parsers.read_dimension_value)]
RoutePattern = Annotated[str, BeforeValidator(parsers.read_route_pattern)]
Scope = Annotated[str, BeforeValidator(parsers.read_scope)]
Folder = Annotated[Path, BeforeValidator(parsers.read_folder)]
File = Annotated[Path, BeforeValidator(parsers.read_file)]
Wait = Annotated[float, BeforeValidator(units.read_wait)]
Moment = Annotated[float, BeforeValidator(units.read_moment)]
Count = Annotated[int, BeforeValidator(units.Whole(1, units.COUNT_MAX))]
Priority = Annotated[int, BeforeValidator(units.Whole(0, 1000))]
Sentence = Annotated[str, BeforeValidator(parsers.read_sentence)]
FieldName = Annotated[str, BeforeValidator(parsers.read_field_name)]
ClaimName = Annotated[str, BeforeValidator(parsers.read_claim_name)]
Switch = Annotated[bool, BeforeValidator(units.read_switch)]
Share = Annotated[float, BeforeValidator(units.read_share)]
Sample = Annotated[float, BeforeValidator(units.read_sample)]
Rate = Annotated[units.Rate, BeforeValidator(units.read_rate), PlainSerializer(str)]
Address = Annotated[addresses.Address, BeforeValidator(addresses.read_address), PlainSerializer(str)]
Network = Annotated[addresses.Network, BeforeValidator(addresses.read_network), PlainSerializer(str)]
