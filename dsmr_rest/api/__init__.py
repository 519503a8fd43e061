"""What the paths return: from a Request and the Meter to a Response.

It has every form that a reading is served in: JSON, events, metrics, HomeWizard-compatible answers, the dashboard. It
knows no socket and no serial port. Start reading at `dispatch.Api.respond` and `routes.ROUTES`.
"""
