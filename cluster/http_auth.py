"""Who may call an HTTP service of ours: anyone on loopback, elsewhere whoever has the API key."""

from __future__ import annotations

import hmac
import ipaddress

from dynaq.errors import InputError


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_address(api_key: str | None, host: str, what: str) -> None:
    """Raises InputError when anyone on the network could use `what`."""
    if api_key is None and not is_loopback(host):
        raise InputError(
            f"{what} would answer anyone on {host}; set an API key (api_key or $DYNAQ_API_KEY) or use 127.0.0.1"
        )


def served_host() -> str:
    """The address on which this cluster's Serve listens: the YAML of `serve deploy` sets it outside of our reach."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    return "127.0.0.1" if client is None else str(client.http_config.host)


def key_matches(given: str | None, key: str) -> bool:
    """Whether a bearer token is the key; takes as long whatever it is."""
    return given is not None and hmac.compare_digest(given.encode(), key.encode())


def shown_address(host: str, port: int) -> str:
    """The URL of an address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
