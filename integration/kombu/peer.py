"""A program written with Kombu, for the tests: what it is told by its first argument, on the broker of its second.

It uses Kombu as the reference does: a topic exchange, a queue of replies for each call, ConsumerMixin for services. What it
gets it prints as JSON, one object a line.
"""

import json
import queue
import sys
import threading
import time
import uuid

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.mixins import ConsumerMixin

EXCHANGE = Exchange("commissaire", type="topic")


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def connect(uri, options):
    return Connection(uri, transport_options=options)


class Caller:
    """Calls as the reference does: each asks for its reply in a queue of its own."""

    def __init__(self, connection):
        self.connection = connection
        self.channel = connection.channel()
        self.producer = Producer(self.channel, EXCHANGE)

    def call(self, key, params, ident=None, body=None, timeout=10, **sending):
        name = "response-{}".format(uuid.uuid4())
        replies = self.connection.SimpleQueue(
            name, queue_opts={"auto_delete": True, "durable": False})
        if body is None:
            body = {"jsonrpc": "2.0", "id": ident if ident is not None else str(uuid.uuid4()),
                    "method": key.rsplit(".", 1)[1], "params": params}
        try:
            self.producer.publish(body, routing_key=key, declare=[EXCHANGE], reply_to=name, **sending)
            message = replies.get(block=True, timeout=timeout)
            message.ack()
            payload = message.payload
            return payload if isinstance(payload, dict) else json.loads(payload)
        finally:
            replies.close()


def calls(uri, options, task):
    """Many calls from many threads; says how many were answered well, and how long they took."""
    wrong, lock = [], threading.Lock()
    done = [0]

    def one(number):
        with connect(uri, options) as connection:
            caller = Caller(connection)
            for at in range(number, task["calls"], task["threads"]):
                params = json.loads(json.dumps(task["params"]).replace('"@"', str(at)))
                answer = None
                try:
                    answer = caller.call(task["key"], params, ident=at)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                    answer = repr(error)
                wanted = json.loads(json.dumps(task["result"]).replace('"@"', str(at)))
                with lock:
                    done[0] += 1
                    if not isinstance(answer, dict) or answer.get("result") != wanted or answer.get("id") != at:
                        wrong.append([at, answer])

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(task["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(done=done[0], wrong=wrong[:3], wrongs=len(wrong), seconds=time.monotonic() - began)


def ask(uri, options, task):
    """One call for each line of standard input; the answer to each."""
    with connect(uri, options) as connection:
        caller = Caller(connection)
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                say(answer=caller.call(asked["key"], asked.get("params"), asked.get("id"), asked.get("body"),
                                       asked.get("timeout", 10), **asked.get("sending", {})))
            except queue.Empty:
                say(timeout=True)
            except Exception as error:  # noqa: BLE001 - as above
                say(error=repr(error))


class Service(ConsumerMixin):
    """Answers NAME.add and NAME.fail, as the reference does: one message at a time, the reply as text."""

    def __init__(self, connection, name):
        self.connection, self.name = connection, name
        self.queue = Queue(name, EXCHANGE, routing_key=name + ".*")

    def get_consumers(self, Consumer, channel):
        return [Consumer([self.queue], callbacks=[self.on_message])]

    def on_consume_ready(self, connection, channel, consumers, **kwargs):
        say(ready=True)

    def on_message(self, body, message):
        body = body if isinstance(body, dict) else json.loads(body)
        answer = {"jsonrpc": "2.0", "id": body["id"]}
        if body["method"] == "add":
            answer["result"] = sum(body["params"].values())
        else:
            answer["error"] = {"code": -20000, "message": "no such", "data": {"exception": "x"}}
        if message.properties.get("reply_to"):
            replies = self.connection.SimpleQueue(message.properties["reply_to"])
            replies.put(json.dumps(answer))
            replies.close()
        message.ack()


class Listener(ConsumerMixin):
    """Prints what comes to a queue bound to patterns; with `hold`, keeps each so many seconds before it acknowledges."""

    def __init__(self, connection, task):
        self.connection, self.hold = connection, task.get("hold", 0)
        self.ack = task.get("ack", True)
        name = task.get("queue") or "amq.gen-{}".format(uuid.uuid4())
        self.queues = [Queue(name, EXCHANGE, routing_key=pattern) for pattern in task["patterns"]]

    def get_consumers(self, Consumer, channel):
        for bound in self.queues[1:]:
            bound(channel).declare()
        return [Consumer(self.queues[:1], callbacks=[self.on_message])]

    def on_consume_ready(self, connection, channel, consumers, **kwargs):
        say(ready=True)

    def on_message(self, body, message):
        say(key=message.delivery_info["routing_key"], body=body,
            again=bool(message.headers.get("redelivered") or message.delivery_info.get("redelivered")))
        time.sleep(self.hold)
        if self.ack:
            message.ack()
            say(acked=body)


def publish(uri, options, task):
    """Publishes what stands on each line of standard input."""
    count = 0
    with connect(uri, options) as connection:
        producer = Producer(connection.channel(), EXCHANGE)
        for line in sys.stdin:
            given = json.loads(line)
            producer.publish(given["body"], routing_key=given["key"], declare=[EXCHANGE], **given.get("sending", {}))
            count += 1
    say(published=count)


def redis(uri, options, task):
    """Carries out commands on the server itself; what it answers."""
    import redis as client

    server = client.Redis.from_url(uri, decode_responses=True)
    for command in task["commands"]:
        answer = server.execute_command(*command)
        say(answer=sorted(answer) if isinstance(answer, (set, list)) else answer)


def monitor(uri, options, task):
    """Counts the commands that the server carries out until it is told to ECHO the mark: those that came over a connection,
    and those within scripts."""
    import redis as client

    counts = {"connections": {}, "scripts": {}}
    with client.Redis.from_url(uri).monitor() as commands:
        say(ready=True)
        for command in commands.listen():
            words = command["command"].split()
            if words[:2] == ["ECHO", task["mark"]]:
                break
            place = counts["scripts" if command["client_type"] == "lua" else "connections"]
            place[words[0]] = place.get(words[0], 0) + 1
    say(**counts)


def main():
    what, uri, task = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    options = task.get("options", {})
    if what == "service":
        Service(connect(uri, options), task["name"]).run()
    elif what == "listen":
        Listener(connect(uri, options), task).run()
    else:
        {"calls": calls, "ask": ask, "publish": publish, "redis": redis, "monitor": monitor}[what](uri, options, task)


main()
