"""``/v1/responses`` by conversion: a request becomes a chat, a chat's answer becomes a response, whole or in events.

    chat = to_chat(body)                       # raises Refused
    response = from_chat(completion, body)
    stream = Stream(body)
    stream.feed(chunk) ... stream.end()        # bytes of server-sent events; or stream.error(error object)

Nothing here waits, and nothing is stored: what would need a stored response is refused. ``body`` is the request as it
came. Parameters that change what an answer means are done or refused; what cannot change it is ignored.
"""

from __future__ import annotations

from quantgate.serve._responses_ask import named, to_chat
from quantgate.serve._responses_events import Stream
from quantgate.serve._responses_object import from_chat

__all__ = ["Stream", "from_chat", "named", "to_chat"]
