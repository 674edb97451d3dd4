"""What is asked of the kernel, word by word."""

from __future__ import annotations

from dockp.spi.values import Mount
from dockp_storage_overlay2 import plan
from dockp_storage_overlay2.options import Overlay2Options

PLAIN = Overlay2Options()
LOWERS = ["/r/2/diff", "/r/1/diff"]


def test_a_base_is_a_bind_mount() -> None:
    assert plan.writable("/r/1/diff", "/r/1/work", [], PLAIN) == Mount(
        type="bind", source="/r/1/diff", options=("bind",)
    )


def test_a_view_of_one_layer_is_a_read_only_bind_mount() -> None:
    assert plan.read_only(["/r/1/diff"], PLAIN) == Mount(type="bind", source="/r/1/diff", options=("bind", "ro"))


def test_a_child_is_an_overlay_with_the_nearest_layer_first() -> None:
    assert plan.writable("/r/3/diff", "/r/3/work", LOWERS, PLAIN) == Mount(
        type="overlay",
        source="overlay",
        options=(
            "lowerdir+=/r/2/diff",
            "lowerdir+=/r/1/diff",
            "upperdir=/r/3/diff",
            "workdir=/r/3/work",
            "index=off",
            "metacopy=off",
            "redirect_dir=nofollow",
        ),
    )


def test_a_view_of_several_layers_is_an_overlay_without_upper_directory() -> None:
    assert plan.read_only(LOWERS, PLAIN) == Mount(
        type="overlay",
        source="overlay",
        options=("lowerdir+=/r/2/diff", "lowerdir+=/r/1/diff", "metacopy=off", "redirect_dir=nofollow", "ro"),
    )


def test_every_option_changes_its_words() -> None:
    options = Overlay2Options(metacopy=True, volatile=True)
    assert plan.writable("/u", "/w", ["/l"], options).options == (
        "lowerdir+=/l",
        "upperdir=/u",
        "workdir=/w",
        "index=off",
        "metacopy=on",
        "redirect_dir=on",
        "volatile",
    )
    assert plan.read_only(LOWERS, options).options[-3:] == ("metacopy=on", "redirect_dir=on", "ro")
