"""The figures of `benches/peers/run`, and their medians."""

import statistics

# The figures: the scenario of the bench, its key, the name for readers, a divisor, a unit.
FIGURES = [
    ("fanout", "delivery_cpu_us", "CPU time for each delivery", 1, "µs"),
    ("idle", "client_resident_bytes", "Memory of an idle client", 1024, "KiB"),
    ("fanout", "last_client_median_ms", "Until the last client has an event, median", 1, "ms"),
    ("fanout", "last_client_p99_ms", "Until the last client has an event, p99", 1, "ms"),
]


def medians(results):
    """Yields of each figure: its name, its unit, and of each server the median and the
    median of the ratios to the first server."""
    first = results["servers"][0]["figures"]
    for _, key, name, divisor, unit in FIGURES:
        of_servers = []
        for server in results["servers"]:
            values = server["figures"][key]
            ratios = [one / ours for one, ours in zip(values, first[key])]
            of_servers.append((statistics.median(values) / divisor, statistics.median(ratios)))
        yield name, unit, of_servers
