"""What the page tells of sinks."""

from jaxheads.report import words
from jaxheads.report.layout import Section, Topic


def topic(run, found, judged) -> Topic:
    del found, judged
    if "sink" not in run.result:
        return Topic()
    text = f"Heads give {words.percent(run.result['sink']['mean'])} of their attention."
    return Topic([Section("sink", "The first token", text)], verdict=text)
