"""Open files: each connection is one, and many systems allow a process 256 or 1,024 unless it asks for more."""

import resource

#: What is asked for where the system says that it knows no limit: macOS refuses an infinite one, and over 10,240.
UNLIMITED = 8192


def allow() -> None:
    """Allow this process as many open files as it may have."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = UNLIMITED if most == resource.RLIM_INFINITY else most
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
