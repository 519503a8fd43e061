"""The document of /health."""

from tests.conftest import (
    Server,
)


def test_health_counts_what_happened(served: Server) -> None:
    """GET /health is 200 with the code ok, the age of the last reading, and the counts since the start."""
    served.get('/telegram')
    before = served.get('/health').json
    served.get('/telegram')
    response = served.get('/health')
    after = response.json
    assert (response.status, after['status'], after['code']) == (200, 'ok', 'ok')
    assert 0 <= after['ageOfLastReading'] < 60
    assert after['version']
    for counter in 'telegrams', 'portOpenings':
        assert after['counters'][counter] == before['counters'][counter] + 1
    successes_before = before['counters']['requestsByStatus']['200']
    assert after['counters']['requestsByStatus']['200'] == successes_before + 2
