"""One reading, from end to end."""

from conftest import StartServer

from dsmr_rest.simulated_meter import SimulatedMeter


def test_a_request_gets_a_reading(start_server: StartServer, meter: SimulatedMeter) -> None:
    """The server answers GET / with the meter's telegram as JSON."""
    reply = start_server(meter.port).get('/')
    assert reply.status == 200
    assert reply.json['p1MessageHeader']['value'] == '50'
