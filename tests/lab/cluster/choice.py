"""Choose the provider: the one that CLUSTER names, else kind where docker runs, else local."""

from collections.abc import Mapping

from .model import ClusterError

VARIABLE = "CLUSTER"
KIND, LOCAL, EXISTING = PROVIDERS = ("kind", "local", "existing")


def wanted(environment: Mapping[str, str]) -> str:
    """The provider that the environment asks for, "" when it leaves the choice.

    Raises ClusterError for a word that is no provider.
    """
    word = environment.get(VARIABLE, "").strip()
    if word and word not in PROVIDERS:
        raise ClusterError(f"{VARIABLE}={word} names no provider; use one of {', '.join(PROVIDERS)}, or leave it unset")
    return word
