"""``postseal quarantine`` on any broker: one suite, for the twins in the process and for the real ones."""

from __future__ import annotations

import io
import json
from typing import Any, ClassVar

import pytest

from postseal.core import MemoryLedger, OpeningKey, PublicKeyRecipients, Sealer, Verdict
from postseal.core.cli._app import run
from tests.contract import ORDER, SECRETS, Line, Raw, World, flipped

__all__ = ["QuarantineContract"]


class QuarantineContract:
    """To be inherited with fixtures ``line`` and ``at``, the arguments that say where the broker is."""

    keeps: ClassVar[bool] = False
    """Whether what was sent back stays in the quarantine."""

    @pytest.fixture
    def world(self, line: Line) -> World:
        return World(line)

    @pytest.fixture
    def refused(self, world: World, line: Line) -> tuple[str, str, Sealer]:
        """Have a message be refused because of a missing right, and mend that; return its place, its quarantine and the consumer."""
        place, bad = line.place(), line.place()
        policy = world.policy(
            place, on_refused="quarantine", quarantine=f"{line.scheme}:{bad}", on_duplicate="settle"
        )
        line.send(world.sealer(policy, ledger=MemoryLedger()), place, ORDER, {"tenant": "north"})
        world.keys.refused.set()
        with line.receiving(world.sealer(policy, ledger=MemoryLedger()), place) as receiving:
            receiving.until(lambda: bool(world.events))
            receiving.until(lambda: line.has_message(bad))
        assert world.verdicts() == [Verdict.UNKNOWN_KEY]
        world.keys.refused.clear()
        world.events.clear()
        return place, f"{line.scheme}:{bad}", world.sealer(policy, ledger=MemoryLedger())

    def said(self, capsys: Any, *args: str, code: int = 0) -> list[dict[str, Any]]:
        """Run a command with --json; return what it says."""
        assert run(["quarantine", *args, "--json"]) == code
        out, _ = capsys.readouterr()
        assert not [secret for secret in SECRETS if secret.decode(errors="replace") in out]
        return [json.loads(line) for line in out.splitlines()]

    def test_it_is_listed_and_shown_without_its_body(self, refused, line, at, capsys) -> None:
        place, bad, _ = refused
        for _ in range(2):  # looking takes nothing away
            [held] = self.said(capsys, "list", bad, *at)
            assert (held["verdict"], held["source"]) == ("unknown-key", f"{line.scheme}:{place}")
            assert (held["sealed"], held["unverified"]["sender"]) == (True, "shop")
        assert run(["quarantine", "list", bad, *at]) == 0
        assert "unknown-key" in capsys.readouterr().out
        assert run(["quarantine", "show", bad, held["id"], *at]) == 0
        out, _ = capsys.readouterr()
        assert "UNVERIFIED" in out
        assert not [secret for secret in SECRETS if secret.decode(errors="replace") in out]
        assert self.said(capsys, "show", bad, "none-such", *at, code=1) == []

    def test_filters_say_which(self, refused, at, capsys) -> None:
        _, bad, _ = refused
        for option, value, count in (
            ("--verdict", "unknown-key", 1),
            ("--verdict", "forged", 0),
            ("--sender", "shop", 1),
            ("--sender", "mallory", 0),
            ("--since", "1h", 1),
            ("--since", "2099-01-01T00:00:00+00:00", 0),
        ):
            if option != "--since" or self.said(capsys, "list", bad, *at)[0]["at"] is not None:
                assert len(self.said(capsys, "list", bad, option, value, *at)) == count

    def test_what_is_replayed_is_delivered_once(self, refused, world, line, at, capsys) -> None:
        """A10, issue 4: sealed as it was; a second replay, or a copy that was left behind, reaches nobody."""
        place, bad, consumer = refused
        [held] = self.said(capsys, "replay", bad, "--all", *at)
        assert held["sent_to"] == f"{line.scheme}:{place}"
        with line.receiving(consumer, place) as receiving:
            assert receiving.take(1) == [ORDER]
        assert world.events == []
        again = self.said(capsys, "replay", bad, "--all", *at)
        assert len(again) == (1 if self.keeps else 0)
        line.send(consumer, place, b"behind it")
        with line.receiving(consumer, place) as receiving:
            receiving.until(lambda: b"behind it" in receiving.bodies)
        assert receiving.bodies == [b"behind it"]
        assert world.verdicts() == [Verdict.DUPLICATE] * len(again)

    def test_what_goes_back_has_its_own_headers_alone(self, refused, line, at, capsys) -> None:
        place, bad, _ = refused
        self.said(capsys, "replay", bad, "--all", *at)
        [raw] = [each for each in line.held(place, 1) if each.headers.get("tenant")][-1:]
        assert raw.headers["tenant"] == "north"
        assert not [name for name in raw.headers if name.startswith("postseal-")]

    def test_nothing_is_dropped_without_a_yes(self, refused, line, at, capsys, monkeypatch) -> None:
        _, bad, _ = refused
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert run(["quarantine", "drop", bad, "--all", *at]) == 1
        capsys.readouterr()
        [held] = self.said(capsys, "list", bad, *at)
        [dropped] = self.said(capsys, "drop", bad, held["id"], "--yes", *at)
        assert dropped["dropped"]
        assert self.said(capsys, "list", bad, *at) == []

    def test_what_is_no_envelope_is_listed_too(self, world, line, at, capsys) -> None:
        """Clear text that was injected: its bytes are not shown, and where it goes has to be said."""
        bad = line.place()
        line.put(bad, Raw(ORDER))
        [held] = self.said(capsys, "list", f"{line.scheme}:{bad}", *at)
        assert (held["sealed"], held["source"], held["bytes"]) == (False, None, len(ORDER))
        assert run(["quarantine", "replay", f"{line.scheme}:{bad}", "--all", *at]) == 2
        assert "say --to" in capsys.readouterr().err
        assert len(self.said(capsys, "list", f"{line.scheme}:{bad}", *at)) == 1

    def test_what_lies_there_is_moved_to_another_key(self, world, line, at, capsys, tmp_path) -> None:
        """B15, issue 5: dead letters are wrapped anew, with all that travels beside them; what cannot be moved is told; a second run moves nothing twice."""
        old, new = OpeningKey.generate("x25519"), OpeningKey.generate("x25519")
        (tmp_path / "old.key").touch(0o600)
        (tmp_path / "old.key").write_bytes(old.to_pem())
        (tmp_path / "new.pem").write_bytes(new.public.to_pem())
        dead, moved = line.place(), line.place()
        policy = world.policy(dead)
        producer = world.sealer(policy, keys={"main": PublicKeyRecipients([old.public])})
        line.send(producer, dead, ORDER, {"tenant": "north"})
        line.put(dead, Raw(b"in clear"))
        arguments = ["rewrap", f"{line.scheme}:{dead}", "--to", f"{line.scheme}:{moved}", *at, "--json"]
        arguments += ["--old", str(tmp_path / "old.key"), "--new", str(tmp_path / "new.pem")]
        for count in (1, 0):
            code = run(arguments)
            told = json.loads(capsys.readouterr().out)
            assert told["moved"] == count
            left = 0 if self.keeps and not count else 1
            assert (code, told["left"]) == (1 if left else 0, left)
        came = line.held(moved, 2 if self.keeps else 1)
        assert len(came) == (2 if self.keeps else 1)
        [envelope] = [line.envelope(raw.body) for raw in came if raw.headers.get("tenant") == "north"]
        consumer = world.sealer(policy, keys={"main": PublicKeyRecipients(open_with=[new])})
        assert consumer.open(envelope, destination=f"{line.scheme}:{dead}").body == ORDER

    def test_a_forgery_stays_one(self, world, line, at, capsys) -> None:
        """A9: replaying proves nothing: it is refused again."""
        place, bad = line.place(), line.place()
        policy = world.policy(place, on_refused="quarantine", quarantine=f"{line.scheme}:{bad}")
        other = line.place()
        line.send(world.sealer(world.policy(other)), other, ORDER)
        line.put(place, flipped(line, line.held(other, 1)[0]))
        with line.receiving(world.sealer(policy), place) as receiving:
            receiving.until(lambda: line.has_message(bad))
            self.said(
                capsys, "replay", f"{line.scheme}:{bad}", "--all", "--to", f"{line.scheme}:{place}", *at
            )
            receiving.until(lambda: len(world.events) >= 2)
        assert receiving.bodies == []
