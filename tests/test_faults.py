"""The table of faults: what clients, the log and the documents rely on."""

import re
from http import HTTPStatus

import pytest

from dsmr_rest.faults import METER_FAULTS, Fault, MeterError


@pytest.mark.parametrize('fault', Fault)
def test_a_fault_is_a_member_of_its_own(fault: Fault) -> None:
    """Each fault has a code of its own in lower case, which is its name, and the status of an error."""
    assert fault.code == fault.name.lower()
    assert re.fullmatch('[a-z]+(_[a-z]+)*', fault.code)
    assert fault.status >= HTTPStatus.BAD_REQUEST
    assert Fault[fault.code.upper()] is fault


def test_no_fault_is_another_name_for_one() -> None:
    """Faults with equal values would be one member of the Enum with two names."""
    assert [fault.name for fault in Fault] == list(Fault.__members__)


def test_no_fault_of_a_request_is_one_of_the_meter() -> None:
    """A wait for a reading never ends with a fault of the client, nor with the end of the server."""
    for fault in METER_FAULTS:
        assert fault.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    assert Fault.STOPPING not in METER_FAULTS
    assert Fault.TOO_MANY_CONNECTIONS not in METER_FAULTS


def test_the_origin_of_a_fault_decides_whether_it_ends_a_wait() -> None:
    """A new fault of the port, the line, the meter or the reading is known as such without a list of them."""
    of_request = {fault for fault in Fault if fault.status < HTTPStatus.INTERNAL_SERVER_ERROR}
    of_server = {Fault.STOPPING, Fault.TOO_MANY_CONNECTIONS, Fault.NOT_IMPLEMENTED}
    assert set(Fault) - of_request - of_server == METER_FAULTS


def test_faults_of_the_port_pass_when_the_port_is_available() -> None:
    """Each fault of the port is 503, is one of the meter, and is known as one of the port."""
    of_port = [fault for fault in Fault if fault.is_of_port]
    assert Fault.PORT_LOST in of_port
    assert Fault.METER_SILENT not in of_port
    for fault in of_port:
        assert fault.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert fault in METER_FAULTS


def test_an_error_has_its_fault_and_its_sentence() -> None:
    """MeterError keeps the fault and the detail, and the detail is its text."""
    error = MeterError(Fault.PORT_LOST, '/dev/ttyUSB0 is gone')
    assert (error.fault, error.detail, str(error)) == (Fault.PORT_LOST, error.detail, error.detail)
