"""What every part of a configuration has in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the configuration: it cannot be changed, and takes no field that it does not know."""

    # Built when one is first read, and so only those that are read by themselves: to build each of the hundred as it is
    # imported took a third of a worker's start.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
