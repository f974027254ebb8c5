"""Pictures over the length show what was measured, also of a run that was cut off."""

import matplotlib.axes

from benchmarks.plots import plot_prefill


def test_a_model_that_was_cut_off_ends_where_it_ended(tmp_path, monkeypatch):
    drawn = {}
    plot = matplotlib.axes.Axes.plot

    def watched(axes, *points, **style):
        if "label" in style:
            drawn[style["label"]] = list(points[0])
        return plot(axes, *points, **style)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", watched)
    row = {"tokens_per_second": 5.0, "peak_mib": 1.0}
    whole, cut_off = (
        {"lengths": {str(n): row for n in lengths}}
        for lengths in ((4096, 65536, 1048576), (4096, 65536))
    )
    plot_prefill({"drt_tiny": {"gcattn": whole, "other": cut_off}}, tmp_path / "prefill.png")
    assert drawn == {"gcattn": [4096, 65536, 1048576], "other": [4096, 65536]}
    assert (tmp_path / "prefill.png").read_bytes().startswith(b"\x89PNG")
