"""What answers for an arm: ``http.py`` an OpenAI-compatible server, ``local.py`` an engine of this process.

The contract is ``serve.Upstream``. ``dialects.py`` knows what servers want otherwise than OpenAI.
"""
