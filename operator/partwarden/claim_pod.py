"""What to type to read an archive that lies on a PersistentVolumeClaim: only a pod sees it. Pure."""

from __future__ import annotations

import json
import shlex

CLAIM = "pvc://"
MOUNT = "/archives"


def how_to_read(url: str) -> str:
    """For people, several lines. ``url``: a location like ``pvc://claim/folder``."""
    claim, _, folder = url.removeprefix(CLAIM).partition("/")
    path = f"{MOUNT}/{folder}".rstrip("/")
    # As namespaces want it that take restricted pods only.
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "archives", "persistentVolumeClaim": {"claimName": claim}}],
        "containers": [
            {
                "name": "restore",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "archives", "mountPath": MOUNT}],
            }
        ],
    }
    words = [
        *("kubectl", "run", "restore", "--image=IMAGE", "--restart=Never", "--rm", "--attach", "--quiet"),
        *("--override-type=strategic", f"--overrides={json.dumps({'spec': pod})}", "--"),
        *("restore", f"--manifest={path}", "--list"),
    ]
    return (
        f"{url} lies on PersistentVolumeClaim {claim!r}, which a pod in its namespace can read. With the operator's "
        f"image for IMAGE, and with --namespace where it is another:\n\n  {shlex.join(words)}\n\nThere it is {path}, "
        "for verify as well. With --dsn a pod needs a password, too: docs/restoring.md has its manifest"
    )
