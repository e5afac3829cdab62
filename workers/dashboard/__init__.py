"""`celery -A workers flower`: stock Flower behind a login, with a page of the fleet and its figures as metrics.

How Flower is hooked. Flower has no plugins: its command makes one `flower.command.Flower` and serves it. So the command's
callback, which click allows any program to set, is wrapped when our app is loaded (`workers.app` calls `serve_ours`), and puts a
subclass of that class in its place. That subclass does everything else by documented means of Tornado: added handlers, a template
loader, `find_handler`. Options, the variables FLOWER_* and flowerconfig.py are read by Flower itself, before.

Rejected alternatives:

- a second entry point `flower` in the group `celery.commands`: which of two equal names wins is not defined, and ours would
  also take the place of Flower for other projects of the same environment;
- flowerconfig.py: it is the user's, it is found by the working directory alone, and it sets options but adds no page;
- handlers added to `flower.urls.handlers`: that list is read too early to know the options, and could not close /metrics;
- a preload option of the app, with a callback: it would show in the help of every command of Celery.

If a release of Flower has no such class any more, `celery -A workers flower` refuses to start: stock Flower would be open.
"""

from workers.dashboard.hook import serve_ours

__all__ = ["serve_ours"]
