"""What every key provider must do: one suite, run over each of them, against stand-ins and against real key services."""

from __future__ import annotations

import logging

import pytest

from postseal.core import Policy, Refused, Sealer, Verdict
from postseal.core.errors import KeyBroken, KeyRefused, NotMine, PostsealError
from postseal.core.keys import KeyContext, KeyProvider, Recipient
from postseal.core.wire import MAX_KEY_ID, MAX_WRAPPED
from tests.core.stand_ins import CONTEXT, broken, forms_of, in_threads

OTHER_CONTEXTS = [KeyContext("payments", CONTEXT.destination), KeyContext(CONTEXT.policy, "kafka:payments")]


class ProviderContract:
    """Inherit, and give the fixtures."""

    @pytest.fixture
    def provider(self) -> KeyProvider:
        """The one under test."""
        raise NotImplementedError

    @pytest.fixture
    def stranger(self) -> KeyProvider:
        """Another of the same kind, on another wrapping key."""
        raise NotImplementedError

    def test_it_is_a_key_provider(self, provider):
        assert isinstance(provider, KeyProvider)

    def test_it_unwraps_what_it_made(self, provider):
        made = provider.generate(CONTEXT)
        assert type(made.data_key) is bytes
        assert len(made.data_key) == 32
        assert provider.unwrap(made.recipients, CONTEXT) == made.data_key

    def test_it_unwraps_what_it_wrapped(self, provider):
        data_key = bytes(range(32))
        assert provider.unwrap(provider.wrap(data_key, CONTEXT), CONTEXT) == data_key

    def test_every_data_key_is_another(self, provider):
        assert len({provider.generate(CONTEXT).data_key for _ in range(8)}) == 8

    def test_what_it_wraps_fits_an_envelope(self, provider):
        """SPEC.md 9; and no two recipients of one algorithm and key id."""
        recipients = provider.generate(CONTEXT).recipients
        assert 1 <= len(recipients) <= 16
        assert len({(recipient.algorithm, recipient.key_id) for recipient in recipients}) == len(recipients)
        for recipient in recipients:
            assert 1 <= len(recipient.key_id) <= MAX_KEY_ID
            assert 1 <= len(recipient.wrapped_key) <= MAX_WRAPPED

    def test_making_and_wrapping_name_the_same_key(self, provider):
        made = provider.generate(CONTEXT)
        wrapped = provider.wrap(made.data_key, CONTEXT)
        assert [r[:2] for r in made.recipients] == [r[:2] for r in wrapped]

    @pytest.mark.parametrize("other", OTHER_CONTEXTS, ids=["policy", "destination"])
    def test_another_context_opens_nothing(self, provider, other):
        """A8: the key service itself keeps policies and destinations apart."""
        made = provider.generate(CONTEXT)
        with pytest.raises(KeyBroken):
            provider.unwrap(made.recipients, other)

    def test_a_changed_wrapped_key_is_broken(self, provider):
        made = provider.generate(CONTEXT)
        with pytest.raises(KeyBroken):
            provider.unwrap([broken(recipient) for recipient in made.recipients], CONTEXT)

    def test_no_change_of_a_wrapped_key_opens_or_seems_to_pass(self, provider):
        """Whatever a forger writes there: never a data key, and never *unavailable*, or the message would come back for ever."""
        made = provider.generate(CONTEXT)
        for recipient in made.recipients:
            wrapped = recipient.wrapped_key
            changed = [
                bytes([wrapped[0] ^ 1]) + wrapped[1:],
                wrapped[: len(wrapped) // 2] + bytes([wrapped[len(wrapped) // 2] ^ 128]) + wrapped[len(wrapped) // 2 + 1 :],
                wrapped[:-1],
                wrapped + b"\0",
                wrapped[:1],
                bytes(len(wrapped)),
                bytes(MAX_WRAPPED),
            ]  # fmt: skip
            for garbage in changed:
                with pytest.raises((KeyBroken, KeyRefused, NotMine)):
                    provider.unwrap([recipient._replace(wrapped_key=garbage)], CONTEXT)

    def test_recipients_of_others_are_not_its_own(self, provider, stranger):
        foreign = stranger.generate(CONTEXT).recipients
        with pytest.raises(NotMine):
            provider.unwrap(foreign, CONTEXT)
        with pytest.raises(NotMine):
            provider.unwrap([], CONTEXT)

    def test_an_unknown_algorithm_is_passed_over(self, provider):
        """SPEC.md 10.3: also where its key id is ours."""
        made = provider.generate(CONTEXT)
        unknown = [recipient._replace(algorithm=-4_000_000_000) for recipient in made.recipients]
        with pytest.raises(NotMine):
            provider.unwrap(unknown, CONTEXT)
        assert provider.unwrap([*unknown, *made.recipients], CONTEXT) == made.data_key

    def test_its_own_recipient_is_found_among_others(self, provider, stranger):
        made, foreign = provider.generate(CONTEXT), stranger.generate(CONTEXT).recipients
        for recipients in ((*foreign, *made.recipients), (*made.recipients, *foreign)):
            assert provider.unwrap(recipients, CONTEXT) == made.data_key

    def test_a_wrapped_key_of_another_under_its_own_name_does_not_open(self, provider, stranger):
        """A forger names our key and carries what another wrapped: whose right is asked is ours to say, not the message's."""
        ours, theirs = provider.generate(CONTEXT), stranger.generate(CONTEXT)
        for mine, foreign in zip(ours.recipients, theirs.recipients, strict=False):
            forged = Recipient(mine.algorithm, mine.key_id, foreign.wrapped_key)
            with pytest.raises((KeyBroken, KeyRefused, NotMine)):
                provider.unwrap([forged], CONTEXT)

    def test_many_threads_use_it_at_once(self, provider):
        def both() -> bool:
            made = provider.generate(CONTEXT)
            return provider.unwrap(made.recipients, CONTEXT) == made.data_key

        assert in_threads(*[both] * 8) == [True] * 8

    def test_no_data_key_shows_in_a_log_or_in_its_repr(self, provider, caplog):
        """D3: also with everything logged at DEBUG, the client's own library included."""
        caplog.set_level(logging.DEBUG)
        made = provider.generate(CONTEXT)
        provider.wrap(made.data_key, CONTEXT)
        provider.unwrap(made.recipients, CONTEXT)
        told = caplog.text + repr(made) + str(made) + repr(provider) + str(provider)
        assert not [form for form in forms_of(made.data_key) if form in told]

    def test_no_error_quotes_a_wrapped_key(self, provider):
        made = provider.generate(CONTEXT)
        changed = [broken(recipient) for recipient in made.recipients]
        with pytest.raises(PostsealError) as caught:
            provider.unwrap(changed, CONTEXT)
        for recipient in changed:
            assert not [form for form in forms_of(recipient.wrapped_key) if form in str(caught.value)]

    def test_a_sealer_takes_it_by_one_line(self, provider, stranger):
        """D6: a provider is a line of configuration; what one seals another does not open."""
        orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
        ours = Sealer(sender="shop", policies=[orders], keys={"main": provider})
        theirs = Sealer(sender="shop", policies=[orders], keys={"main": stranger})
        envelope = ours.seal(b"4111 1111 1111 1111", destination="kafka:orders")
        ours.close()
        assert ours.open(envelope, destination="kafka:orders").body == b"4111 1111 1111 1111"
        with pytest.raises(Refused) as refused:
            theirs.open(envelope, destination="kafka:orders")
        assert refused.value.verdict is Verdict.UNKNOWN_KEY
