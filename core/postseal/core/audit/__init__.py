"""What is told of refused and tolerated messages: one event each, to `logging`, to sinks and to a callback; exact counts; an alarm.

An event never holds a body, a key or a header value. What was read from a message and not authenticated has a name that says so.
"""

from postseal.core.audit._alarm import AlarmLimits
from postseal.core.audit._auditor import Auditor
from postseal.core.audit._flood import FloodLimit
from postseal.core.audit._log import QuietLog
from postseal.core.audit._records import AlarmEvent, AuditEvent, Counted, MoreEvents
from postseal.core.audit._sink import AuditSink

__all__ = [
    "AlarmEvent",
    "AlarmLimits",
    "AuditEvent",
    "AuditSink",
    "Auditor",
    "Counted",
    "FloodLimit",
    "MoreEvents",
    "QuietLog",
]
