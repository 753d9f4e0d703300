"""Where a peer's artifacts are: an S3 bucket and the keys to read it, as one line of text on chain.

    Location(endpoint, bucket, region, access_key, secret).encode()     at most 512 bytes, ASCII
    Location.parse(text)                                                takes exactly what `encode` gives

    touchstone-artifacts/1 https://s3.example.org bucket region ACCESS_KEY SECRET

A location that is published must carry keys that can only read, of a bucket that holds nothing but artifacts: everybody
can use them. The same form, with keys that can write, tells a neuron its own bucket, and is then a secret.

Whoever calls the endpoint checks first where it leads (template/artifacts/s3.py): this module checks only the form. So
that what is checked is what is called, a host has one spelling: lower case, no user, no default port, no trailing dot
or slash, and no number that a resolver would take for an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from protocol.errors import MalformedMessage

LOCATION_PREFIX = "touchstone-artifacts/"
LOCATION_VERSION = 1
LOCATION_BYTES = 512  # the largest BigRaw field of the Commitments pallet
DEFAULT_PORTS = {"http": 80, "https": 443}

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!0x[0-9a-f]*$)(?![0-9]+$){_LABEL}")  # no last label that is a number
_ENDPOINT = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"
)
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_KEY = re.compile(r"[!-~]{1,128}")  # printable ASCII without the space


@dataclass(frozen=True)
class Location:
    """`endpoint` is the service's URL without the bucket; the bucket is addressed by path. `region` is what requests
    are signed for ("auto" and "us-east-1" are usual where there are none).

    Raises MalformedMessage for values outside the form, and when they are too long together.
    """

    endpoint: str
    bucket: str
    region: str
    access_key: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_endpoint(self.endpoint)
        for name, value, form in (
            ("bucket", self.bucket, _BUCKET),
            ("region", self.region, _REGION),
            ("access key", self.access_key, _KEY),
            ("secret", self.secret, _KEY),
        ):
            if not isinstance(value, str) or not form.fullmatch(value):
                raise MalformedMessage(f"the {name} of a location does not have the form {form.pattern}")
        if len(self.encode()) > LOCATION_BYTES:
            raise MalformedMessage(f"a location has at most {LOCATION_BYTES} bytes")

    @property
    def host(self) -> str:
        """A DNS name, or an IP address without brackets."""
        return urlsplit(self.endpoint).hostname or ""

    @property
    def port(self) -> int:
        split = urlsplit(self.endpoint)
        return split.port or DEFAULT_PORTS[split.scheme]

    def encode(self) -> str:
        """The fields in order, with one space between them."""
        fields = (self.endpoint, self.bucket, self.region, self.access_key, self.secret)
        return " ".join((f"{LOCATION_PREFIX}{LOCATION_VERSION}", *fields))

    @staticmethod
    def parse(text: str) -> Location:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        parts = text.split(" ") if len(text) <= LOCATION_BYTES else []
        if len(parts) != 6 or parts[0] != f"{LOCATION_PREFIX}{LOCATION_VERSION}":
            raise MalformedMessage(
                f"not a location of version {LOCATION_VERSION}; one reads {LOCATION_PREFIX}{LOCATION_VERSION} "
                "<endpoint> <bucket> <region> <access key> <secret>"
            )
        return Location(*parts[1:])


def is_location(text: str) -> bool:
    """Whether a text means to be a location, in whatever version."""
    return text.startswith(LOCATION_PREFIX)


def _check_endpoint(endpoint: object) -> None:
    found = _ENDPOINT.fullmatch(endpoint) if isinstance(endpoint, str) else None
    if found is None or not _is_host(found["host"]):
        raise MalformedMessage("the endpoint of a location reads http(s)://<host>[:<port>][/<path>], in lower case")
    port = int(found["port"] or 0)
    if port > 65535 or port == DEFAULT_PORTS[found["scheme"]]:
        raise MalformedMessage("the endpoint of a location names a port up to 65535, and leaves the default one out")


def _is_host(host: str) -> bool:
    """A DNS name, or an IP address in its one spelling."""
    literal = host[1:-1] if host.startswith("[") else host
    try:
        address = ip_address(literal)
    except ValueError:
        return _NAME.fullmatch(host) is not None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return False  # Python's versions spell it differently, and nobody may call it
    return isinstance(address, IPv6Address) == host.startswith("[") and str(address) == literal
