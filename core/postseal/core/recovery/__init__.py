"""Opening what was sealed when no key service is left: with the archive's private key, put together from its shares.

::

    key = join([Path("share-1-of-5.txt").read_text(), Path("share-4-of-5.txt").read_text(), ...])
    recovery = Recovery(PublicKeyRecipients(open_with=[key]), policies=policies, signers=signers)
    for message in read_dump("orders.jsonl"):
        recovered = recovery.open(message)

Nothing here asks a network. Signatures are checked where the keys to verify with are given, and what was not checked is told apart.
"""

from postseal.core.recovery._dumps import FORMATS, Kept, read_dump
from postseal.core.recovery._opening import Proof, Recovered, Recovery
from postseal.core.recovery._output import Output, Report, recover
from postseal.core.recovery._shares import join, split

__all__ = [
    "FORMATS",
    "Kept",
    "Output",
    "Proof",
    "Recovered",
    "Recovery",
    "Report",
    "join",
    "read_dump",
    "recover",
    "split",
]
