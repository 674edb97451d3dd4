"""Capabilities: names and numbers, and the five sets of the calling process. Source: capabilities(7)."""

from __future__ import annotations

import struct

from dockp.linux.libc import buffer, c_char_p, c_int, c_ulong, c_void_p, check, error, function, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = tuple(
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct "
    "sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap "
    "mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore".upper().split()
)
"""Without ``CAP_``, in the order of their numbers."""
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}
SYS_RESOURCE = NUMBERS["CAP_SYS_RESOURCE"]

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_capget = system_call("capget", c_char_p, c_void_p)
_capset = system_call("capset", c_char_p, c_char_p)
_prctl = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def mask(names: Iterable[str]) -> tuple[int, list[str]]:
    """The bits of ``CAP_…`` names (any case), and the names that are not capabilities."""
    bits = 0
    unknown = []
    for name in names:
        number = NUMBERS.get(name.upper())
        if number is None:
            unknown.append(name)
        else:
            bits |= 1 << number
    return bits, unknown


def names(bits: int) -> list[str]:
    """``CAP_…`` names of a mask, in the order of their numbers; bits without a name are left out."""
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if bits >> number & 1]


def get() -> tuple[int, int, int]:
    """The effective, permitted and inheritable set of this process."""
    data = buffer(24)
    check(_capget(struct.pack("=Ii", _VERSION_3, 0), data), "capget")
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data.raw)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def set(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets. Raises: PermissionError when something is asked for that is not permitted."""
    words = []
    for shift in (0, 32):
        words += [value >> shift & 0xFFFFFFFF for value in (effective, permitted, inheritable)]
    check(_capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", *words)), "capset")


def bounding() -> int:
    """The bounding set of this process."""
    bits = 0
    for number in range(64):
        value = _prctl(_PR_CAPBSET_READ, number, 0, 0, 0)
        if value < 0:  # EINVAL: past the last capability of this kernel
            break
        bits |= value << number
    return bits


def limit_bounding(keep: int) -> None:
    """Drop every capability that is not in ``keep`` from the bounding set. Needs CAP_SETPCAP."""
    for number in range(64):
        if keep >> number & 1 or _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
            continue
        problem = error(f"drop capability {number} from the bounding set")
        held = _prctl(_PR_CAPBSET_READ, number, 0, 0, 0)
        if held < 0:  # past the last capability of this kernel
            return
        if held:
            raise problem


def set_ambient(bits: int) -> None:
    """Make the ambient set exactly ``bits``, which must be permitted and inheritable."""
    check(_prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear the ambient capabilities")
    for number in range(len(NAMES)):
        if bits >> number & 1:
            check(
                _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0),
                f"raise CAP_{NAMES[number]} in the ambient set",
            )
