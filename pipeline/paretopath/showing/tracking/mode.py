"""Whether W&B is online, offline or off: what recipe and environment say, and where a key is."""

import netrc
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["auto", "online", "offline", "disabled"]

_ENVIRONMENT: Mapping[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_TRUE = ("1", "true", "yes", "on")


def wanted_mode(setting: Mode, environ: Mapping[str, str]) -> Mode:
    """What the user asked for: ``auto``, ``online``, ``offline`` or ``disabled``.

    ``disabled`` wins wherever it is said; else the variable WANDB_MODE goes before the recipe, as
    what was typed last.

    Args:
        setting: the recipe's ``tracking.mode``.
        environ: the environment's variables.
    """
    said = _ENVIRONMENT.get(environ.get("WANDB_MODE", "").lower())
    off = environ.get("WANDB_DISABLED", "").lower() in _TRUE
    if off or "disabled" in (setting, said):
        return "disabled"
    return said or setting


def has_key(server: str, environ: Mapping[str, str], home: Path) -> bool:
    """Whether a key for a W&B server is configured: by a variable, or by ``wandb login``.

    Args:
        server: its address, ``https://api.wandb.ai``.
        environ: the environment's variables.
        home: where ``.netrc`` is.
    """
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    files = [environ["NETRC"]] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]
    for file in files:
        try:
            found = netrc.netrc(str(file)).authenticators(urlsplit(server).netloc)
        except (OSError, netrc.NetrcParseError):
            continue
        if found and found[2]:
            return True
    return False


def answers(server: str, *, timeout_s: float) -> bool:
    """Whether a server says anything but an internal error to a query, within some seconds.

    Asked before a run goes online, because W&B's client, once it has begun, waits much longer.
    """
    query = urllib.request.Request(
        f"{server}/graphql",
        data=b'{"query": "{ __typename }"}',
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(query, timeout=timeout_s):
            return True
    except urllib.error.HTTPError as refusal:
        return refusal.code < 500
    except (OSError, ValueError):
        return False
