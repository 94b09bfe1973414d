"""What made-up requests leave out. Loaded by schemathesis for tests/src/schemathesis.rs."""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    """A sequence that isn't reached in time is answered with 503, as promised (docs/freshness.md), and nothing made up is ever
    reached. What isn't a sequence at all stays as it was made up."""
    if query and str(query.get("min_seq", "")).isdigit():
        query["min_seq"] = 0
    return query
