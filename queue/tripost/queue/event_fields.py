"""what fields of several events hold, in words: the schema and docs/events.md have them from here

Pure.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tripost.queue.message import Transfer

Id = Annotated[str, Meta(description="the message's id, as it was told with the 250")]
RecipientId = Annotated[int, Meta(description="which of the message's recipients, from 0; stable")]
Address = Annotated[str, Meta(description="an envelope address")]
NextHop = Annotated[str, Meta(description="where it goes, as `tripost route` tells it")]
Site = Annotated[str, Meta(description="the hosts that share limits and connections")]
Host = Annotated[str, Meta(description="a host's name, or its address where it has no name")]
Ip = Annotated[str, Meta(description="an IP address; empty for a Unix socket")]
Service = Annotated[str, Meta(description="smtp, submission, lmtp, pop3 or monitor")]
Account = Annotated[str, Meta(description="a local account")]
Reply = Annotated[str, Meta(description="the reply's code, enhanced code and text, in one line")]
Attempt = Annotated[int, Meta(description="the number of the attempt, from 1")]
Seconds = Annotated[float, Meta(description="a duration in seconds")]
Wall = Annotated[float, Meta(description="seconds since 1970, by the wall clock")]
Commit = Annotated[float, Meta(description="seconds from the end of its content to stable storage")]
Age = Annotated[float, Meta(description="seconds since the message was accepted")]
Told = Annotated[Transfer | None, Meta(description="how the transaction went, where a host was spoken to")]
