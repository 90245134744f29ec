"""A program for WSGI, in Flask, and the task of locust: what test_gevent_programs.py serves and asks."""

import time

try:
    from locust import HttpUser, task
except ImportError:
    HttpUser = None

if HttpUser is not None:

    class User(HttpUser):
        """Sends bytes and compares what comes back."""

        @task
        def echo(self):
            sent = b"locust" * 500
            with self.client.post("/echo", data=sent, catch_response=True) as answer:
                if answer.content != sent:
                    answer.failure("not the bytes that were sent")


def make():
    from flask import Flask, request

    app = Flask(__name__)

    @app.post("/echo")
    def echo():
        return request.get_data()

    @app.get("/slow")
    def slow():
        time.sleep(3)
        return "late"

    @app.get("/loop")
    def loop():
        import gevent

        hub_loop = gevent.get_hub().loop
        return f"{type(hub_loop).__module__} {hub_loop.backend}"

    return app
