"""Errors of the artifact store. Which one it is says whose fault it is.

    ArtifactError(TemplateError)
    ├── ArtifactUnavailable    not there, not readable, or the store cannot be reached
    │   └── EndpointRefused    the location's endpoint leads to an address that may not be called from here
    ├── ArtifactTooLarge       above the caller's limit; nothing large was fetched
    ├── ArtifactTooSlow        not complete within the caller's time; a file goes on from there at the next try
    ├── ArtifactCorrupt        a manifest or chunk is not what its address says
    └── ArtifactNotWritten     this machine could not keep what it got: never the peer's fault

A text that is no address at all is protocol.errors.MalformedMessage, before anything is asked for.
"""

from __future__ import annotations

from template.errors import TemplateError


class ArtifactError(TemplateError):
    """Root of this package."""


class ArtifactUnavailable(ArtifactError):
    """The store does not give an object, or cannot be reached."""


class EndpointRefused(ArtifactUnavailable):
    """The endpoint of a location leads to an address that may not be called."""


class ArtifactTooLarge(ArtifactError):
    """The artifact is above the limit, or has more bytes than an artifact may have."""


class ArtifactTooSlow(ArtifactError):
    """The time limit passed before everything was there."""


class ArtifactCorrupt(ArtifactError):
    """Bytes do not have the hash of their address, or are no manifest."""


class ArtifactNotWritten(ArtifactError):
    """A file of this machine cannot be read or written."""
