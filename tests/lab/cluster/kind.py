"""stub"""

from .model import Cluster
from .reporter import Reporter
from .state import State


class NoImageError(Exception): ...


def why_not() -> str:
    return "no docker engine answers"


def start(name: str, say: Reporter) -> Cluster:
    raise NotImplementedError


def stop(name: str) -> None:
    raise NotImplementedError


def cluster_of(state: State) -> Cluster:
    raise NotImplementedError


def answers(state: State) -> bool:
    raise NotImplementedError
