"""A Secret is read once for policies that are reconciled together, and an edit is seen soon."""

from collections.abc import Mapping

import pytest

from partwarden.errors import SecretNotFound
from partwarden.kube.secrets import FRESH, Secrets


class ApiServer:
    """Answers with how often it was asked, and knows no Secret that is called ``none``. Its clock is moved by hand."""

    def __init__(self) -> None:
        self.asked, self.now, self.takes = list[tuple[str, str]](), 100.0, 0.0

    def read(self, namespace: str, name: str) -> Mapping[str, str]:
        self.asked.append((namespace, name))
        self.now += self.takes
        if name == "none":
            raise SecretNotFound(name)
        return {"password": str(len(self.asked))}


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
def secrets(api: ApiServer) -> Secrets:
    return Secrets(api.read, lambda: api.now)


def test_a_secret_is_read_once_within_a_moment(api: ApiServer, secrets: Secrets) -> None:
    first = secrets.get("one", "db")
    api.now += FRESH * 0.9
    assert secrets.get("one", "db") == first
    assert api.asked == [("one", "db")]


def test_an_edit_is_seen_after_that_moment(api: ApiServer, secrets: Secrets) -> None:
    secrets.get("one", "db")
    api.now += FRESH
    assert secrets.get("one", "db") == {"password": "2"}


def test_what_was_slow_to_come_is_as_old_as_its_question(api: ApiServer, secrets: Secrets) -> None:
    api.takes = FRESH
    assert secrets.get("one", "db") != secrets.get("one", "db")


def test_no_namespace_gets_the_secret_of_another(api: ApiServer, secrets: Secrets) -> None:
    assert secrets.get("one", "db") != secrets.get("two", "db")
    assert api.asked == [("one", "db"), ("two", "db")]


def test_a_failure_is_not_remembered(api: ApiServer, secrets: Secrets) -> None:
    for _ in range(2):
        with pytest.raises(SecretNotFound):
            secrets.get("one", "none")
    assert len(api.asked) == 2


def test_old_values_are_forgotten(api: ApiServer, secrets: Secrets) -> None:
    for number in range(50):
        secrets.get("one", f"db-{number}")
        api.now += FRESH / 4
    assert len(secrets._known) <= 5
