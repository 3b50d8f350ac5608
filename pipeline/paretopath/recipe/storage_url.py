"""URLs of databases that hold a study."""

from urllib.parse import urlsplit

from paretopath.errors import InvalidValueError, nearest

SCHEMES = ("postgresql", "sqlite", "mysql", "grpc")


def check_url(url: str) -> str:
    """The scheme of a database's URL, without its driver.

    Raises:
        InvalidValueError: it is no URL, of another scheme than :data:`SCHEMES`, or names no place.
    """
    scheme, separator, place = url.partition("://")
    scheme = scheme.partition("+")[0]
    if not separator or scheme not in SCHEMES:
        raise InvalidValueError(
            f"a storage must be the URL of a database, but got {url!r}; {nearest(scheme, SCHEMES)}"
        )
    if not place.strip("/"):
        raise InvalidValueError(f"a storage must name a place, but got {url!r}")
    if scheme == "grpc":
        try:
            address = urlsplit(url)
            known = bool(address.hostname) and (address.port is None or address.port > 0)
        except ValueError:  # a port that is no number
            known = False
        if not known:
            raise InvalidValueError(f"a gRPC proxy must be grpc://HOST:PORT, but got {url!r}")
    return scheme
