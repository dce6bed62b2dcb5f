"""What kind of file system a directory lies on."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = frozenset(
    (
        "9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2",
        "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "virtiofs", "vmhgfs",
    )
)  # fmt: skip
"""Types, as Linux names them, of file systems that other machines write to as well."""
MOUNTS = "/proc/self/mountinfo"


def on_network(path: str) -> bool:
    """Whether a directory lies on a file system that other machines write to as well: any type of FUSE counts as one,
    as what is behind it is not known. False where it cannot be told, as on macOS, or there is no such directory."""
    try:
        device = Path(path).stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, more = line.partition(" - ")
                if fields.split()[2] == number:
                    kind = more.split()[0]
                    return kind in NETWORK or kind.startswith("fuse")
    except (OSError, IndexError):
        pass
    return False
