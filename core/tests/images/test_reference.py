"""References, as the distribution grammar has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp.images.reference import is_digest, is_identifier, matches, parse, parse_tag, split_scheme
from dockp.spi.errors import InvalidArgument

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian", "docker.io/library/debian", "debian"),
        ("docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("library/debian/x", "docker.io/library/debian/x", "library/debian/x"),
        ("user/image", "docker.io/user/image", "user/image"),
        ("localhost/image", "localhost/image", "localhost/image"),
        ("localhost:5000/image:1", "localhost:5000/image:1", "localhost:5000/image:1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c"),
        ("[2001:db8::1]:5000/image", "[2001:db8::1]:5000/image", "[2001:db8::1]:5000/image"),
        ("Registry/image", "Registry/image", "Registry/image"),
        ("ghcr.io/o/i:v1.0_x-Y", "ghcr.io/o/i:v1.0_x-Y", "ghcr.io/o/i:v1.0_x-Y"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:1@{DIGEST}", f"docker.io/library/debian:1@{DIGEST}", f"debian:1@{DIGEST}"),
        ("a__b.c-d---e", "docker.io/library/a__b.c-d---e", "a__b.c-d---e"),
        ("xn--n3h.com/i", "xn--n3h.com/i", "xn--n3h.com/i"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
        ("sha256:abc", "docker.io/library/sha256:abc", "sha256:abc"),
    ],
)
def test_short_forms_become_whole_and_short_again(text: str, whole: str, familiar: str) -> None:
    reference = parse(text)
    assert str(reference) == whole
    assert reference.familiar == familiar
    assert parse(reference.familiar) == reference
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("debian:", "invalid reference format"),
        ("debian:-x", "invalid reference format"),
        ("debian:a/b", "invalid reference format"),
        ("deb ian", "invalid reference format"),
        ("debian@", "invalid reference format"),
        ("debian@sha256:abc", "invalid reference format"),
        ("-debian", "invalid reference format"),
        ("debian.", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("debian\n", "invalid reference format"),
        ("x:" + "t" * 129, "invalid reference format"),
        ("Foo", r"invalid reference format: repository name \(library/Foo\) must be lowercase"),
        ("docker.io/Foo:x", r"invalid reference format: repository name \(library/Foo\) must be lowercase"),
        ("host.com/a/B", r"invalid reference format: repository name \(a/B\) must be lowercase"),
        ("0123456789abcdef" * 4, "cannot specify 64-byte hexadecimal strings"),
        ("a/" * 150 + "a", "repository name must not be more than 255 characters"),
        ("debian@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("debian@sha256:" + "0" * 63, "invalid checksum digest length"),
        ("debian@sha256:" + "F" * 64, "invalid checksum digest format"),
    ],
)
def test_bad_references_are_refused_in_dockers_words(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{complaint}" if complaint.startswith("invalid") else complaint):
        parse(text)


@given(st.text(alphabet="aA0._-/:@[]$ é", max_size=40))
def test_any_text_is_a_reference_that_survives_both_forms_or_one_error(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidArgument:
        return
    assert parse(reference.familiar) == reference
    assert parse(str(reference)) == reference


def test_the_default_tag_is_latest_where_there_is_neither_tag_nor_digest() -> None:
    assert parse("a").with_default_tag().familiar == "a:latest"
    assert parse("a:1").with_default_tag().familiar == "a:1"
    assert parse(f"a@{DIGEST}").with_default_tag().familiar == f"a@{DIGEST}"
    with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest reference"):
        parse_tag(f"a@{DIGEST}")


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("debian", "docker", "debian"),
        ("docker://debian:12", "docker", "debian:12"),
        ("docker:dind", "docker", "docker:dind"),
        ("oci:/srv/images:web", "oci", "/srv/images:web"),
        ("oci:", "oci", ""),
        ("oci/x:1", "docker", "oci/x:1"),
        ("localhost:5000/a", "docker", "localhost:5000/a"),
        ("ipfs:x", "docker", "ipfs:x"),
    ],
)
def test_a_scheme_is_told_from_a_tag(text: str, scheme: str, rest: str) -> None:
    assert split_scheme(text, {"docker", "oci", "docker-archive"}) == (scheme, rest)


def test_digests_and_ids_are_told_apart() -> None:
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST[:-1])
    assert is_identifier(DIGEST[7:])
    assert not is_identifier(DIGEST)


@pytest.mark.parametrize(
    ("pattern", "name", "taken"),
    [
        ("debian", "debian:bookworm", True),
        ("debian:*", "debian:bookworm", True),
        ("deb*", "debian:bookworm", True),
        ("*", "user/image:1", False),
        ("*/*", "user/image:1", True),
        ("user/[a-i]mage", "user/image:1", True),
        ("user/[^a-i]mage", "user/image:1", False),
        ("debian:book????", "debian:bookworm", True),
        (r"debian:book\worm", "debian:bookworm", True),
        ("bookworm", "debian:bookworm", False),
    ],
)
def test_patterns_match_as_path_match_does(pattern: str, name: str, taken: bool) -> None:
    assert matches(pattern, parse(name)) is taken


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[]", "[z-a]"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        matches(pattern, parse("a"))
