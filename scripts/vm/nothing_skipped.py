"""A pytest plugin for the guest: a test may be skipped there only for what the guest is known to lack.

The guest exists to run what other machines skip; a skip that nobody expects is a test that runs nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

KNOWN = (
    r"this kernel has no time namespaces",
    r"no (cpuset|hugetlb|rdma|net_cls|net_prio) cgroup controller is mounted",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment, misc]
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(re.search(pattern, reason) for pattern in KNOWN):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} must run in this guest, but was skipped. {reason}"
    return report  # type: ignore[return-value]
