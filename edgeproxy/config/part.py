"""What every part of a configuration has in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the configuration: it cannot be changed, and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
