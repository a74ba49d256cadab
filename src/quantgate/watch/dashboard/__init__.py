"""The dashboard: pages of the gateway at /dashboard, rendered here, kept live by htmx, drawn by uPlot; no build step.

app.py        the ASGI application: who may look, who may move, which page
sessions.py   a key -> a signed cookie; forms of one's own     moves.py    what the buttons say and do
known.py      what pages ask, once for all who look            pages.py    the pages that only show
facts.py      state, headline, traffic                         rows.py     one finding -> one row
series.py     points -> charts      latency.py  stages         evidence.py the proof that a release stands on
answers.py    templates, files, headers                        words.py    numbers and times for people
templates/    Jinja2, escaped        static/    one style, two scripts of ours, htmx and uPlot with their licences
sample.py     a made-up trial and a gateway around it: ``python -m quantgate.watch.dashboard.sample``
"""

from __future__ import annotations

from quantgate.watch.dashboard.app import Dashboard

__all__ = ["Dashboard"]
