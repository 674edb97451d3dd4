"""Trying credentials at a registry, for ``login``."""

from __future__ import annotations

from dockp.images.registry.endpoints import endpoints
from dockp.images.registry.refusals import Refused
from dockp.images.registry.repository import Repository
from dockp.images.registry.transport import Unreachable
from dockp.spi.errors import Unauthorized
from dockp.spi.images import Credentials, RegistrySettings


def login(domain: str, credentials: Credentials, settings: RegistrySettings) -> str:
    """Ask the registry ``domain`` (``docker.io``, ``host[:port]``) whether it takes the credentials.

    Returns: an identity token to keep instead of the password, or "" when the registry gives none.
    Raises: Unauthorized when it does not take them, Unavailable when it cannot be asked.
    """
    places = endpoints(domain, settings, mirrors=False)
    for endpoint in places:
        repository = Repository(endpoint, "", credentials, settings)
        try:
            repository.ping(offline=True)
        except Refused as refused:
            if refused.status in (401, 403):
                status = f"{refused.status} {refused.reason}".rstrip()
                raise Unauthorized(f"login attempt to {endpoint.url}/v2/ failed with status: {status}") from None
            raise refused.error() from None
        except Unreachable:
            if endpoint is places[-1]:
                raise
        else:
            return repository.authorizer.identity_token
        finally:
            repository.close()
    raise AssertionError("the last place returns or raises")
