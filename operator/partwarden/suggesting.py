"""Names of policies, for whoever presses Tab."""

from __future__ import annotations

import click

from .errors import PartwardenError
from .where import Where


def policies(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the namespace that begin so; none where there is ``--dsn``, or no way to a cluster."""
    if context.params.get("dsn"):
        return []
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from . import reaching

    given = context.params
    where = Where(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
    try:
        found = reaching.Policies(where).all()
    except PartwardenError:
        # There is no place for a message: the shell shows candidates only.
        return []
    return sorted(name for each in found if (name := each["metadata"]["name"]).startswith(incomplete))
