"""A broker that cannot do what claims need is refused at the start, by name, with what to do."""

from __future__ import annotations

import pytest
from fleet import Fleet, WorkerNode
from servers import ValkeyServer


@pytest.mark.parametrize(("rule", "named"), [("-blmove", "BLMOVE"), ("-@scripting", "scripts"), ("-lpos", "LPOS")])
def test_a_worker_says_what_the_broker_refuses(rule: str, named: str, valkey: ValkeyServer) -> None:
    with ValkeyServer() as broker:
        with broker.client() as client:
            client.execute_command("ACL", "SETUSER", "default", rule)
        node = WorkerNode(broker_url=broker.url, cache_url=valkey.url, concurrency=1)
        try:
            with pytest.raises(AssertionError, match="ended with 1"):
                node.start()
            said = [line for line in node.log().splitlines() if "error: the broker refuses" in line]
            assert len(said) == 1
            assert named in said[0]
            assert "PERSONA_FETCH=pop" in said[0]
            assert "Unrecoverable error" not in node.log()
        finally:
            node.kill()


def test_kombus_own_way_needs_none_of_it_and_says_what_it_does_not_promise(question: str) -> None:
    with Fleet(concurrency=1, environ={"PERSONA_FETCH": "pop"}) as fleet:
        assert fleet.ask_plain(question, "calm-flowing-learning").cached == "no"
        assert "PERSONA_FETCH=pop; a message that a node has just taken is lost if the node dies" in fleet.node.log()
        assert fleet.queue.keys("persona.fetch*") == []
