"""How the outlets of each model are read and switched: data from models.toml, which an operator may override."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import Field

from ha_controller.plugin import AgentConfig

Oid = Annotated[str, Field(pattern=r"^1(\.\d+)+$")]
Value = Annotated[int, Field(ge=-1, le=2**31 - 1)]


class OutletModel(AgentConfig):
    """The objects of one family of PDUs; an outlet's index is appended to each."""

    status: Oid
    reads_on: Value
    reads_off: Value
    off: Oid
    off_value: Value
    on: Oid
    on_value: Value
    name: Oid | None = None
    prefix: Annotated[str, Field(pattern=r"^(\d+(\.\d+)*)?$")] = ""

    def index(self, outlet: str) -> str:
        """Return the index of an outlet that is written as a plain number, or in full."""
        return f"{self.prefix}.{outlet}" if self.prefix and "." not in outlet else outlet


class Override(AgentConfig):
    """Values that replace those of the model."""

    status: Oid | None = None
    reads_on: Value | None = None
    reads_off: Value | None = None
    off: Oid | None = None
    off_value: Value | None = None
    on: Oid | None = None
    on_value: Value | None = None
    name: Oid | None = None
    prefix: Annotated[str, Field(pattern=r"^(\d+(\.\d+)*)?$")] | None = None

    def applied_to(self, model: OutletModel) -> OutletModel:
        """Return the model with these values."""
        return model.model_copy(update=self.model_dump(exclude_none=True))


@cache
def known_models() -> Mapping[str, OutletModel]:
    """Return the models that come with the plugin, by name."""
    written = tomllib.loads((files("ha_controller_pdu") / "models.toml").read_text())
    return {name: OutletModel.model_validate(values) for name, values in written.items()}
