"""The caches of data keys: why a key service is asked once for a million messages instead of once for each.

`SealingKeys` hands out the data key of one policy and destination until its age, message count or byte count ends. `OpeningKeys` keeps
unwrapped data keys for a while; that while is the revocation window. In both:

- however many threads and tasks ask for one key at once, one call is made (`flights`);
- a key in use is asked for again a little before its age ends, in a thread of its own, so that no message waits (`leases`);
- where the service does not answer, a key may serve past its age, but never where the service says no;
- what does not unwrap is remembered, and a flood of it is rationed (`rationing`);
- a forked child begins with nothing.

Source: SPEC.md 6.4; design of the AWS Encryption SDK's caching (limits by age, messages and bytes).
"""

from postseal.core.datakeys.counts import CacheCounts, CacheTallies
from postseal.core.datakeys.flights import Calls, Flights, copy_of
from postseal.core.datakeys.leases import Clock
from postseal.core.datakeys.limits import MAX_BYTES, MAX_FAILURES, MAX_MESSAGES, DataKeyLimits, OpeningLimits
from postseal.core.datakeys.opening import NEGATIVE_AGE, OpenedKey, OpeningKeys
from postseal.core.datakeys.sealing import SealingKey, SealingKeys, Write

__all__ = [
    "MAX_BYTES",
    "MAX_FAILURES",
    "MAX_MESSAGES",
    "NEGATIVE_AGE",
    "CacheCounts",
    "CacheTallies",
    "Calls",
    "Clock",
    "DataKeyLimits",
    "Flights",
    "OpenedKey",
    "OpeningKeys",
    "OpeningLimits",
    "SealingKey",
    "SealingKeys",
    "Write",
    "copy_of",
]
