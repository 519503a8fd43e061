"""What is known when there is no reading."""

from dsmr_rest.p1.diagnosis import cannot_open, no_reading
from dsmr_rest.p1.evidence import Evidence, PortFacts, Refusal
from dsmr_rest.p1.line import LONGEST_SILENCE, NOTHING_COUNTED, LineState

PORT = '/dev/ttyUSB0'


def test_facts_that_are_not_known_blame_nobody() -> None:
    """Of a port about which the system says nothing, the diagnosis is that it is not there, whoever runs this."""
    refusal = Refusal(PORT, is_remote=False, number=0, reason='gone', facts=PortFacts())
    assert cannot_open(refusal).fault.code == 'port_missing'


def test_evidence_without_bytes_is_of_a_silent_meter() -> None:
    """With nothing counted, no other program and no stall, the meter is silent for longer than a healthy one."""
    evidence = Evidence(
        port=PORT,
        is_remote=False,
        waited=2 * LONGEST_SILENCE,
        counted=NOTHING_COUNTED,
        seen=LineState(),
        line='115200 8N1',
    )
    assert no_reading(evidence).fault.code == 'meter_silent'
