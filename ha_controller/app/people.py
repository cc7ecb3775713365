"""Builds the door for people: where it is, who may come in, what is put on record."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from ha_controller.adapters.commander import Commander
from ha_controller.adapters.http_api import Doorkeeper, HttpApi, People, Proxies, Role, Tcp
from ha_controller.app.sources import ControllerSources
from ha_controller.config import Api, listen_at


def http_api(api: Api, sources: ControllerSources, commander: Commander) -> HttpApi:
    """The API as it is configured.

    Raises:
        OSError: the certificate or its key cannot be used.
    """
    proxies = Proxies(
        addresses=frozenset(api.proxies),
        user_header=api.proxy_user_header,
        groups_header=api.proxy_groups_header,
        roles={group: Role.named(role) for group, role in api.proxy_groups.items()},
    )
    doorkeeper = Doorkeeper(sources, clock=sources.now, proxies=proxies, session_s=api.session_s)
    roles = {group: Role.named(role) for group, role in api.groups.items()}
    people = People(doorkeeper, sources, ask=sources.groups_of, roles=roles)
    return HttpApi(Path(api.socket), sources, commander, doorkeeper=doorkeeper, people=people, tcp=tcp_of(api))


def tcp_of(api: Api) -> Tcp | None:
    """Where to listen beside the Unix socket; None: nowhere.

    Raises:
        OSError: the certificate or its key cannot be used.
    """
    if not api.listen:
        return None
    address, port = listen_at(api.listen)
    if not api.tls_cert:
        return Tcp(address=address, port=port)
    key = Path(api.tls_key)
    if stat.S_IMODE(key.stat().st_mode) & 0o007:
        raise OSError(f"{key} may be read by everybody: chmod o-rwx {key}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(api.tls_cert, key)
    return Tcp(address=address, port=port, tls=context)
