"""A cluster gets addresses that nothing else uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cluster import ClusterError, subnets
from lab.cluster.subnets import Addresses, Network

networks = st.builds(
    lambda address, length: Network((address, length), strict=False),
    st.integers(min_value=0, max_value=2**32 - 1),
    st.integers(min_value=8, max_value=32),
)


def test_the_parts_of_a_block() -> None:
    addresses = Addresses(Network("198.18.4.0/22"))
    assert (addresses.host, addresses.node) == ("198.18.4.1", "198.18.4.2")
    assert (addresses.pods, addresses.services) == (Network("198.18.5.0/24"), Network("198.18.6.0/24"))
    assert addresses.api_service == "198.18.6.1"


def test_default_routes_and_their_halves_take_nothing() -> None:
    everything = [Network(text) for text in ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1")]
    assert subnets.choose(everything) == subnets.choose([])


def test_the_next_cluster_gets_the_next_block() -> None:
    first = subnets.choose([])
    assert subnets.choose([first.block]).block == Network("198.18.4.0/22")


def test_a_range_in_use_is_passed_over() -> None:
    assert subnets.choose([Network("198.18.0.0/15")]).block == Network("172.16.0.0/22")
    # A single address is a use as well.
    assert subnets.choose([Network("198.18.3.255/32")]).block == Network("198.18.4.0/22")


@pytest.mark.slow
def test_when_nothing_is_free_it_says_so() -> None:
    with pytest.raises(ClusterError, match="every address range"):
        subnets.choose(subnets.POOLS)


@given(st.lists(networks, max_size=20))
def test_what_is_chosen_never_overlaps_with_what_is_taken(taken: list[Network]) -> None:
    try:
        block = subnets.choose(taken).block
    except ClusterError:
        assert any(pool.overlaps(network) for pool in subnets.POOLS for network in taken)
    else:
        assert not any(block.overlaps(network) for network in taken)
