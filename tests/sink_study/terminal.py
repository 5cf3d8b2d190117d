"""What the terminal prints of sinks."""


def lines(run):
    if "sink" in run.result:
        yield f"first token {run.result['sink']['mean']:.3f}"
