"""Carries JSON over HTTP, and says without any secret why it could not."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import anyio.to_thread
from pydantic import AfterValidator, SecretStr
from yarl import URL

from ha_controller.plugin import FenceError, NotDelivered, Undeliverable, one_line
from ha_controller.resolver import Resolver

ANSWER_BYTES_MAX = 64 * 1024
SOCKET_S = 10.0
TRY_AGAIN = (408, 425, 429)


def _is_url(secret: SecretStr) -> SecretStr:
    try:
        url = URL(secret.get_secret_value())
    except ValueError:
        raise ValueError("not a URL. Write it like https://HOST/PATH") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("not a URL of http or https. Write it like https://HOST/PATH")
    return secret


#: whoever knows it may post: it is treated like a password
SecretUrl = Annotated[SecretStr, AfterValidator(_is_url)]


class Poster:
    """Posts to one service, over one connection that is kept."""

    def __init__(self, url: SecretStr, *, ca_file: Path | None = None) -> None:
        """Nothing is opened yet."""
        self._url = URL(url.get_secret_value())
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: Any, *, path: str = "", headers: Mapping[str, str] | None = None) -> bytes:
        """Post JSON; returns the beginning of the answer. A redirect is not followed: it would be told our secrets.

        Raises:
            Undeliverable: the service refuses it.
            NotDelivered: nothing is known.
        """
        where = f"{self._url.host}:{self._url.port}"
        url = self._url.joinpath(path) if path else self._url
        try:
            session = await self._opened()
            async with session.post(url, json=body, headers=headers, allow_redirects=False) as response:
                answer = await response.content.read(ANSWER_BYTES_MAX)
                status = response.status
        except FenceError as error:
            raise NotDelivered(one_line(str(error))) from None
        except TimeoutError:
            raise NotDelivered(f"{where}: no answer within {SOCKET_S:g} s") from None
        except aiohttp.ClientConnectorCertificateError:
            raise NotDelivered(f"{where}: its certificate is not trusted. Set ca_file") from None
        except aiohttp.ClientConnectorError as error:
            raise NotDelivered(f"{where}: {error.strerror or error.os_error}") from None
        except (aiohttp.ClientError, OSError) as error:  # no text: it may quote the URL
            raise NotDelivered(f"{where}: {type(error).__name__}") from None
        if 200 <= status < 300:
            return answer
        kind = NotDelivered if status >= 500 or status in TRY_AGAIN else Undeliverable
        raise kind(f"{where} answers {status}")

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # reading the system's authorities takes tens of milliseconds: not on the loop
            ca_file = None if self._ca_file is None else str(self._ca_file)
            tls = await anyio.to_thread.run_sync(partial(ssl.create_default_context, cafile=ca_file))
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1, resolver=Resolver(), ssl=tls),
                timeout=aiohttp.ClientTimeout(total=SOCKET_S),
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
