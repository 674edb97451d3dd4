"""The image sources that come with the core: OCI layouts, ``docker save`` archives, and Debian by debootstrap."""
