"""What the benchmark says of large bodies."""

from __future__ import annotations

from benchmarks.memory.buffers import Cost, told


def cost(connections: int, *, cpu: float, tree: str = "this", idle: int = 0) -> Cost:
    return Cost(tree, connections, rate=1.0, p50=0.001, cpu_seconds=cpu, faults=1.0, idle=idle)


def test_what_a_body_costs_is_told_of_this_tree_alone_and_nothing_is_asked_for() -> None:
    costs = [cost(1, cpu=each, idle=2 << 20) for each in (0.0002, 0.0003, 0.0009)]
    costs += [cost(8, cpu=0.0001, idle=2 << 20), cost(1, cpu=9.0, tree="other"), cost(8, cpu=9.0, tree="other")]
    found = told(costs)
    assert found.measured == (
        "300 us of a core with 1 connection, 100 us of a core with 8 connections; 2.0 MiB left when idle"
    )
    assert found.holds is None
