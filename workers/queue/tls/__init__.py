"""TLS to broker and results: a URL's options in each library's own form, and what to say when a server is not believed.

Opens no connection by itself but for the one that `refusals` is asked to try.
"""
