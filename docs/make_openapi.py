"""Writes into dsmr_rest/api/openapi.json what follows from the sources.

python -m docs.make_openapi

`paths` comes from the tables in dsmr_rest/api/routes.py, the codes of problem details from dsmr_rest/faults.py, the
kinds of M-Bus devices from dsmr_rest/reading/mbus.py, and the version from the package. Everything else in that file is
written by hand: what is said about the server, its parameters, header fields, responses and schemas.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dsmr_rest
from dsmr_rest.api.routes import (
    HOMEWIZARD_CHANGES,
    HOMEWIZARD_ROUTES,
    POINTER_ROUTE,
    ROUTES,
    Route,
)
from dsmr_rest.faults import METER_FAULTS, Fault
from dsmr_rest.reading.mbus import KINDS

FILE = Path(__file__).parent.parent / 'dsmr_rest' / 'api' / 'openapi.json'
WIDTH = 150
"""Characters of a line, unless a single value needs more."""

REFUSALS = {
    '400': 'BadRequest',
    '408': 'RequestTimeout',
    '414': 'UriTooLong',
    '421': 'Misdirected',
    '431': 'HeadersTooLarge',
    '500': 'InternalError',
    '501': 'NotImplemented',
    '503': 'TooManyConnections',
}
"""The responses that every operation can have, by status."""
LOCKED = {'401': 'Unauthorized'}
"""Those that need credentials can also have this one."""
WITHOUT_METER = ('TooManyConnections', 'Unhealthy')
"""Responses whose problem detail reports no fault of the meter, although its status is that of some."""
PROBLEM = 'application/problem+json'


def references(kind: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [{'$ref': f'#/components/{kind}/{name}'} for name in names]


def responses(names: Mapping[str, str]) -> dict[str, Any]:
    """The `responses` of an operation, in the order of their statuses."""
    statuses = sorted(names)
    return dict(
        zip(statuses, references('responses', map(names.__getitem__, statuses)), strict=True)
    )


def operation(route: Route) -> dict[str, Any]:
    """What OpenAPI calls an operation: a method of a path, here the one that the route is for."""
    made: dict[str, Any] = {
        'operationId': route.name,
        'tags': [route.tag],
        'summary': route.summary,
    }
    if route.description:
        made['description'] = route.description
    made['responses'] = responses({**REFUSALS, **LOCKED, **route.responses})
    return made


def path_item(route: Route | None, change: Route | None) -> dict[str, Any]:
    """All operations of a path: what `route` is for GET and HEAD and `change` for PUT, and OPTIONS."""
    item: dict[str, Any] = {}
    name = ''
    if change:
        name = change.name
        item['put'] = operation(change)
    if route:
        name = route.name
        if route.parameters:
            item['parameters'] = references('parameters', route.parameters)
        item['get'] = operation(route)
        item['head'] = {
            'operationId': f'{name}Head',
            'summary': 'The response to GET without its content',
            'responses': item['get']['responses'],
        }
    item['options'] = {
        'operationId': f'{name}Options',
        'summary': 'The allowed methods, and the response to a CORS preflight request',
        'security': [],
        'responses': responses({'204': 'Options', **REFUSALS}),
    }
    return item


def described(routes: Mapping[str, Route]) -> dict[str, Route]:
    """Those that are part of the interface for programs."""
    return {path: route for path, route in routes.items() if route.name}


def paths() -> dict[str, Any]:
    """The path items of everything that is described."""
    routes = described({**ROUTES, **HOMEWIZARD_ROUTES})
    changes = described(HOMEWIZARD_CHANGES)
    made = {}
    for path in [*routes, *changes]:
        made[path] = path_item(routes.get(path), changes.get(path))
    made['/{pointer}'] = path_item(POINTER_ROUTE, None)
    return made


def codes_of(status: int) -> list[str]:
    return [fault.code for fault in Fault if fault.status == status]


def set_codes(components: dict[str, Any]) -> None:
    """Lists the codes of every problem detail, by the status of its response."""
    for name, response in components['responses'].items():
        content = response.get('content', {})
        if PROBLEM in content:
            properties = content[PROBLEM]['schema']['properties']
            codes = codes_of(properties['status']['const'])
            if name in WITHOUT_METER:
                codes = [Fault.TOO_MANY_CONNECTIONS.code]
            properties['code'] = {'enum': codes}
    ends_of_a_wait = METER_FAULTS | {Fault.STOPPING}
    of_meter = [fault.code for fault in Fault if fault in ends_of_a_wait]
    components['schemas']['MeterCode']['enum'] = of_meter


def set_device_kinds(schemas: dict[str, Any]) -> None:
    """Names the kinds of M-Bus devices, each with the numbers that it has."""
    numbers: dict[str, list[str]] = {}
    for number, kind in KINDS.items():
        numbers.setdefault(kind.name, []).append(str(number))
    named = [f'{" or ".join(of_kind)} {name}' for name, of_kind in numbers.items()]
    device_type = schemas['Objects']['properties']['mbusDeviceType']
    device_type['description'] = f'24.1.0: kind of device (EN 13757-3): {", ".join(named)}'
    of_homewizard = [kind.homewizard_type for kind in KINDS.values() if kind.homewizard_type]
    schemas['HomeWizardExternal']['properties']['type']['enum'] = of_homewizard


def updated(description: Mapping[str, Any]) -> dict[str, Any]:
    """The whole description, with today's version, paths, codes and kinds of devices."""
    made: dict[str, Any] = json.loads(json.dumps(description))
    made['info']['version'] = dsmr_rest.__version__
    made['paths'] = paths()
    set_codes(made['components'])
    set_device_kinds(made['components']['schemas'])
    refuse_unknown_references(made, made['components'])
    return made


def refuse_unknown_references(part: Any, components: Mapping[str, Any]) -> None:
    """Ends the program when a route or a schema refers to a component that nobody has written yet."""
    if isinstance(part, list):
        for item in part:
            refuse_unknown_references(item, components)
    if not isinstance(part, dict):
        return
    if '$ref' in part:
        *_, kind, name = part['$ref'].split('/')
        if name not in components[kind]:
            raise SystemExit(
                f'{FILE}: components.{kind} lacks {name}, to which something refers: write it there'
            )
    for item in part.values():
        refuse_unknown_references(item, components)


def pretty(value: Any, indent: str = '', before: int = 0) -> str:
    """JSON in which a value that fits into WIDTH is on one line; `before` is the length of what is before it there."""
    flat = json.dumps(value, ensure_ascii=False)
    has_items = isinstance(value, dict | list) and len(value) > 0
    if not has_items or len(indent) + before + len(flat) <= WIDTH:
        return flat
    deeper = f'{indent}  '
    if isinstance(value, list):
        items = [pretty(item, deeper) for item in value]
        begin, end = '[]'
    else:
        items = []
        for key, item in value.items():
            name = f'{json.dumps(key)}: '
            items.append(name + pretty(item, deeper, len(name)))
        begin, end = '{}'
    lines = f',\n{deeper}'.join(items)
    return f'{begin}\n{deeper}{lines}\n{indent}{end}'


def text() -> str:
    """What the file must contain."""
    description = json.loads(FILE.read_text(encoding='utf-8'))
    return pretty(updated(description)) + '\n'


def main() -> None:
    FILE.write_text(text(), encoding='utf-8')


if __name__ == '__main__':
    main()
