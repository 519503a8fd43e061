"""Changes of this machine's addresses, in a network of its own where they can be made."""

import subprocess
import sys
import threading

import pytest

from dsmr_rest.process.address_changes import AddressWatch
from dsmr_rest.process.threads import NoThreadError
from tests.conftest import ROOT
from tests.system_packages import program

SCRIPT = f"""
import subprocess, sys, threading
sys.path.insert(0, {str(ROOT)!r})
from dsmr_rest.process.address_changes import AddressWatch

def ip(*words):
    subprocess.run(['ip', *words], check=True)

changes = []
changed = threading.Semaphore(0)

def note():
    changes.append(subprocess.run(['ip', '-4', '-o', 'address'], capture_output=True, text=True).stdout)
    changed.release()

watch = AddressWatch(note)
watch.start()
ip('link', 'set', 'lo', 'up')
assert changed.acquire(timeout=60)
ip('address', 'add', '192.0.2.1/24', 'dev', 'lo')
ip('address', 'add', '192.0.2.2/24', 'dev', 'lo')
while '192.0.2.2' not in changes[-1]:
    assert changed.acquire(timeout=60)
ip('address', 'del', '192.0.2.2/24', 'dev', 'lo')
ip('address', 'del', '192.0.2.1/24', 'dev', 'lo')
while '192.0.2' in changes[-1]:
    assert changed.acquire(timeout=60)
watch.close()
assert threading.active_count() == 1
print('done')
"""


def test_every_change_is_reported_until_the_end() -> None:
    """After addresses came or went, the function is called when they have settled; close() ends the thread."""
    own_network = [program('unshare', 'util-linux'), '--map-root-user', '--net']
    if subprocess.run([*own_network, 'ip', 'link'], capture_output=True, check=False).returncode:
        pytest.skip('this user may not have a network of its own (unshare --map-root-user --net)')
    done = subprocess.run(
        [*own_network, sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout) == ('', 'done\n')


def test_nothing_is_reported_where_nothing_changes() -> None:
    """A watch of addresses that stay as they are calls nobody, and leaves no thread and no file open."""
    called: list[bool] = []
    watch = AddressWatch(lambda: called.append(True))
    watch.start()
    watch.close()
    assert called == []


def test_without_a_thread_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no thread can be started, the caller is told, and a fixture checks that no socket stays open."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', fail)
    watch = AddressWatch(lambda: None)
    with pytest.raises(NoThreadError):
        watch.start()
    watch.close()


def test_a_watch_that_was_never_started_may_be_closed() -> None:
    """close() does nothing then."""
    AddressWatch(lambda: None).close()
