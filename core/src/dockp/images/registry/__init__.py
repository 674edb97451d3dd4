"""The client's side of the OCI distribution specification, version 1.1: registries as images come from and go to them.

::

    endpoints     where a registry is: mirrors, TLS or not, certificates, proxies
    transport     one request to one endpoint: connections, redirects, retries, Docker's words for what went wrong
    tokens        authentication: challenges, tokens, basic
    refusals      what a registry answers instead, as errors
    repository    the verbs: manifests, blobs, tags, referrers
    uploads       a repository as the target of a push
    searching     what a registry has
    login         whether it takes somebody's credentials
    blobs         a blob as a stream that goes on where a connection broke
    credentials   Docker's config.json, credential stores and helpers
    source        all of this as the image source ``docker://``

urllib3 is imported by what uses it, so that commands without a registry do not pay for it.
"""
