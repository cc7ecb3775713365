"""What the API answers about who comes in: sessions and tokens. See `answers`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ha_controller.adapters.http_api.answers import Answer


class Session(Answer):
    """Who is asking."""

    name: str
    role: Literal["nobody", "viewer", "operator", "admin"]
    via: Literal["", "socket", "token", "login", "proxy"]
    csrf: str = Field(description="What requests of this session that change something carry in X-HA-CSRF.")


class TokenRow(Answer):
    """What is known of a token."""

    name: str
    role: Literal["viewer", "operator", "admin"]
    created_at: float
    created_by: str
    expires_at: float | None
    expired: bool


class NewToken(Answer):
    """A token that was made just now."""

    name: str
    role: Literal["viewer", "operator", "admin"]
    token: str = Field(description="Shown this once.")
    expires_at: float | None
