"""Who the command runs as: labels, privileges, ids, capabilities, working directory. Runs in the child.

Labels and seccomp programs are opened before the child enters a container, whose /proc and files cannot be trusted.
"""

from __future__ import annotations

# Here and not where they are used: a child would import them anew in every container. _signal is the C half of
# signal, which wraps it in enums.
import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import stat

from dockp.linux import capabilities, paths, process
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEFAULT_UMASK = 0o022
_ENVIRONMENT_LIMIT = 1 << 20


def label_writer(label: str, apparmor: bool) -> tuple[int, bytes] | None:
    """Prepare to label the command: (descriptor of the attribute, what to write). None without a label.

    Raises RuntimeFailure where the kernel has no such security module.
    """
    if not label or (apparmor and label == "unconfined"):
        return None
    if apparmor:
        if not apparmor_enabled():
            raise RuntimeFailure(
                f"apparmor profile {label!r} is asked for, but AppArmor is not enabled on this host"
                " (use the profile unconfined)"
            )
        own = "/proc/self/attr/apparmor/exec"
        path = own if os.path.exists(own) else "/proc/self/attr/exec"
        text = f"exec {label}".encode()
    else:
        if not os.path.exists("/sys/fs/selinux/enforce"):
            raise RuntimeFailure(f"SELinux label {label!r} is asked for, but SELinux is not enabled on this host")
        path = "/proc/self/attr/exec"
        text = label.encode()
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC), text


def apparmor_enabled() -> bool:
    """Whether the kernel enforces AppArmor profiles."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def write_labels(writers: list[tuple[int, bytes]]) -> None:
    """Label what this process executes next."""
    for fd, text in writers:
        try:
            os.write(fd, text)
        except OSError as failure:
            raise RuntimeFailure(f"cannot apply security label {text.decode()!r}: {failure.strerror}") from failure
        os.close(fd)


def take_stdio(stdio: tuple[int, int, int]) -> None:
    """Make the three descriptors 0, 1 and 2, whatever their numbers are now."""
    # First out of the way: a source may itself be numbered 0, 1 or 2.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)
        os.close(copy)


# glibc cancels threads and sets ids with these, lets nobody touch them, and has posix_spawn(3) leave them ignored.
_OF_THE_C_LIBRARY = (32, 33)


def take_terminal() -> None:
    """Make descriptor 0 the controlling terminal of this session."""
    tiocsctty = 0x540E
    fcntl.ioctl(0, tiocsctty, 0)


def forget_signals() -> None:
    """Default actions and an empty mask: what the shim ignores or blocks must not be inherited by the command."""
    for number in range(1, _signal.NSIG):
        try:
            if _signal.getsignal(number) is not _signal.SIG_DFL:
                _signal.signal(number, _signal.SIG_DFL)
        except (ValueError, OSError):
            continue  # numbers the C library keeps for itself
    for number in _OF_THE_C_LIBRARY:
        process.reset_action(number)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def apply_scheduling(spec: dict[str, Any]) -> None:
    """``process.scheduler`` and ``process.ioPriority``."""
    wanted = spec.get("scheduler")
    if wanted:
        flags = 0
        for name in wanted.get("flags") or []:
            flags |= process.SCHEDULING_FLAGS[name]
        process.set_scheduler(
            process.SCHEDULING_POLICIES[wanted["policy"]],
            wanted.get("nice") or 0,
            wanted.get("priority") or 0,
            flags,
            wanted.get("runtime") or 0,
            wanted.get("deadline") or 0,
            wanted.get("period") or 0,
        )
    io = spec.get("ioPriority")
    if io:
        process.set_io_priority(process.IO_CLASSES[io["class"]], io.get("priority") or 0)


def enter_directory(path: str) -> None:
    """chdir(2) to the command's working directory.

    A directory outside the container's root, reached through a descriptor that the host left open, shows itself in
    getcwd(2), which then fails or answers "(unreachable)" (CVE-2024-21626). Raises RuntimeFailure.
    """
    try:
        os.chdir(path)
        here = os.getcwd()
    except FileNotFoundError:
        text = f'chdir to cwd ("{path}") set in config.json failed: no such file or directory'
        raise RuntimeFailure(text, "not-found") from None
    except OSError as failure:
        why = (failure.strerror or "").lower()
        raise RuntimeFailure(f'chdir to cwd ("{path}") set in config.json failed: {why}') from failure
    if not here.startswith("/"):
        raise RuntimeFailure(f"the working directory {path!r} is outside of the container")


def make_working_directory(path: str) -> None:
    """Make ``process.cwd`` where the image has none."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(paths.make_directories(root, path))
    except OSError as failure:
        if failure.errno not in (errno.EROFS, errno.EEXIST, errno.EACCES, errno.ENOTDIR):
            raise  # the others show in enter_directory, with its words
    finally:
        os.close(root)


def own_stdio(uid: int) -> None:
    """Give pipes, sockets and terminals on 0, 1, 2 to the user, so that it may open /dev/stdout and the like."""
    for fd in (0, 1, 2):
        found = os.fstat(fd)
        kind = stat.S_IFMT(found.st_mode)
        terminal = kind == stat.S_IFCHR and os.isatty(fd)
        if found.st_uid != uid and (kind in (stat.S_IFIFO, stat.S_IFSOCK) or terminal):
            try:
                os.fchown(fd, uid, found.st_gid)
            except OSError as failure:
                # unmapped in a user namespace, a read-only or foreign file system: the command can still use the fd
                if failure.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                    raise


def take_ids(user: dict[str, Any], wanted: dict[str, list[str]], warn: Callable[[str], None]) -> Callable[[], None]:
    """Limit the bounding set and become the user; the function returned then sets the other four capability sets.

    The bounding set goes first, while CAP_SETPCAP is there. Between the two a user other than root has no effective
    capabilities, just the permitted ones that keepcaps kept. A capability that this host does not have is left out
    with a warning.
    """
    permitted = capabilities.get()[1]
    sets = {}
    missing = 0
    for name in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        bits, unknown = capabilities.mask(wanted.get(name) or [])
        for text in unknown:
            warn(f"unknown capability {text} is ignored")
        missing |= bits & ~permitted
        sets[name] = bits & permitted
    if missing:
        warn(f"not available on this host: {', '.join(capabilities.names(missing))}")
    capabilities.limit_bounding(sets["bounding"])
    process.set_keep_capabilities(True)
    uid, gid = user.get("uid") or 0, user.get("gid") or 0
    set_groups(user.get("additionalGids") or [])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    process.set_keep_capabilities(False)

    def take_capabilities() -> None:
        held = sets["permitted"]
        capabilities.set(sets["effective"] & held, held, sets["inheritable"])
        capabilities.set_ambient(sets["ambient"] & held & sets["inheritable"])

    return take_capabilities


def set_groups(groups: list[int]) -> None:
    """setgroups(2); to have none is no error where it is denied."""
    try:
        os.setgroups(groups)
    except PermissionError:
        # user_namespaces(7): denied for ever in a namespace whose maps an unprivileged process wrote
        if groups:
            raise


def environment(entries: list[str] | None, uid: int) -> dict[str, str]:
    """The command's environment, with HOME from the container's /etc/passwd where it is not set."""
    found = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if equals and key:
            found[key] = value
    if not found.get("HOME"):
        found["HOME"] = home(uid)
    return found


def home(uid: int) -> str:
    """The home directory of ``uid`` in the container, "/" when it has none."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return "/"
    try:
        # The image's file: only a regular one, and only so much of it.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "/"
        text = os.read(fd, _ENVIRONMENT_LIMIT).decode(errors="surrogateescape")
    except OSError:
        return "/"
    finally:
        os.close(fd)
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid):
            return fields[5] or "/"
    return "/"
