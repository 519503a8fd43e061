"""Which worker of pytest-xdist runs which test: any that has time, but for files whose tests share something expensive.

pytest-xdist has groups for that (--dist loadgroup), which have no effect with pytest 9.2.
"""

from xdist.scheduler import LoadScopeScheduling

ONE_SERVER = 'nearly all with one server'
TOGETHER = {
    'tests/programs/test_dashboard.py': 'all with one browser',
    'tests/programs/test_dashboard_layout.py': 'all with another browser',
    'tests/programs/test_web_page.py': 'all with a third browser',
    'tests/api/test_dispatch.py': ONE_SERVER,
    'tests/api/test_openapi.py': ONE_SERVER,
    'tests/api/test_pointer.py': ONE_SERVER,
    'tests/http/test_server.py': ONE_SERVER,
    'tests/programs/test_systemd.py': 'all on one machine, which takes a while to start',
    'tests/test_discovery.py': 'they hear each other',
    'tests/test_readme.py': 'all with one demo',
}
"""Files whose tests run one after the other, with the reason."""
LONGEST = {
    'tests/api/test_stream.py',
    'tests/http/test_limits.py',
    'tests/http/test_odd_kernels.py',
    'tests/programs/test_integrations.py',
    'tests/reading/test_hostile_telegrams.py',
    'tests/test_telegram_server.py',
    'tests/test_unattended.py',
}
"""Files with tests that take ten seconds and more: they begin first, so that no worker has one when all others end."""
INSTALLED_CLIENT = 'test_the_real_client_'
"""The tests with this beginning of a name use a package that is installed for them."""


class ByWhatTheyShare(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """Gives each worker scopes: a scope is one test, or all that share something."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition('::')
        if file in TOGETHER:
            return file
        if test.startswith(INSTALLED_CLIENT):
            return INSTALLED_CLIENT
        return nodeid
