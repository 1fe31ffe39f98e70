import base64
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ssl_ebm.evaluation.figures import POINTS, Line, line_chart, marker, number, png_uri, ridges, swatch, thin, ticks


def decode(uri):
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def texts(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 20.0), (-5.0, 1.0), (0.571, 0.602), (-1e-5, 3e-5), (1e6, 3e6), (0.0, 1.0)]
)
@pytest.mark.parametrize("least", [2, 3, 5])
def test_ticks_are_few_round_numbers_inside(low, high, least):
    found = ticks(low, high, least)
    assert least <= len(found) <= 3 * least
    assert low - 1e-9 * abs(low) <= found[0] and found[-1] <= high + 1e-9 * abs(high)
    step = (found[-1] - found[0]) / (len(found) - 1)
    assert math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9) % 1, 0, abs_tol=1e-6)
    assert any(math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9), f, rel_tol=1e-6) for f in (1, 2, 5))


def test_ticks_of_a_point():
    assert ticks(3.0, 3.0) == [3.0]


def test_numbers_are_short_and_have_a_minus():
    assert (number(-0.5), number(20.0), number(1234567.0)) == ("−0.5", "20", "1.23457e+06")


def test_thinning_keeps_ends_and_means():
    points = [(float(i), float(i % 2)) for i in range(10_001)]
    thinned = thin(points)
    assert len(thinned) == POINTS and thinned[-1] == points[-1]
    assert np.mean([y for _, y in thinned[:-1]]) == pytest.approx(0.5, abs=0.01)
    assert thin(points[:5]) == points[:5]


def test_line_chart_places_points_to_scale():
    svg = line_chart(
        [Line([(0.0, 0.0), (10.0, 1.0)], 0), Line([(0.0, 1.0), (10.0, 0.0)], 1)],
        title="t",
        x_label="epoch",
        y_label="y",
    )
    ys = [[float(pair.split()[1]) for pair in d[1:].split("L")] for d in re.findall(r'd="([^"]+)"', svg)]
    assert ys[0][0] == ys[1][1] > ys[0][1] == ys[1][0], "SVG's y points down"
    assert "epoch" in texts(svg) and "10" in texts(svg)
    assert 'class="r0"' in svg and 'class="r1"' in svg


@pytest.mark.parametrize("points", [[(3.0, 1.0)], [(0.0, 2.0), (1.0, 2.0)], [(0.0, -1e9), (1.0, 1e9)]])
def test_line_chart_of_few_or_constant_points_is_finite(points):
    svg = line_chart([Line(points, 0), Line([], 1)], title="t", x_label="x", y_label="y")
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


def test_logarithmic_axis_names_powers_of_ten():
    svg = line_chart([Line([(-5.0, 0.5), (2.0, 0.6)], 0, ring=1)], title="t", x_label="C", y_label="y", log_x=True)
    assert {"1e−5", "0.01", "100"} <= set(texts(svg))
    assert 'class="ring"' in svg


def test_ridges_put_low_energies_to_the_left_and_scale_each_to_its_peak():
    low, high = [0] * 100, [0] * 100
    low[10:20], high[80:90] = [1000] * 10, [3] * 10
    svg = ridges([("near", low), ("far", high)], np.linspace(-1, 1, 101).tolist(), run=2, title="t", x_label="E = <b>")
    near, far = (float(x) for x in re.findall(r'class="median" x1="([\d.]+)"', svg))
    assert near < 60 and far > 300, "medians, of an axis cropped to where there are pairs"
    heights = [[float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", d)] for d in re.findall(r'd="([^"]+)"', svg)]
    assert [max(h) - min(h) for h in heights] == [36, 36]
    assert svg.count('class="r2"') == 1, "the first alone in the run's colour"
    assert {"near", "far", "E = <b>", "← compatible"} <= set(texts(svg))


def test_ridges_cut_outliers_and_no_more():
    edges = np.linspace(0, 100, 101).tolist()

    def last_tick(counts):
        svg = ridges([("a", counts)], edges, run=0, title="t", x_label="E")
        return max(float(text) for text in texts(svg) if text.isdigit())

    assert last_tick([1000] * 10 + [0] * 89 + [5]) == 10, "0.05% lie far away"
    assert last_tick([1000] * 10 + [0] * 89 + [50]) == 100, "0.5%"
    assert last_tick([1000] * 100) == 100


def test_ridges_of_one_bin_and_of_a_kind_without_pairs():
    counts = [0] * 100
    counts[50] = 7
    svg = ridges([("one", counts), ("none", [0] * 100)], np.linspace(0, 1, 101).tolist(), run=0, title="t", x_label="E")
    ElementTree.fromstring(svg)
    assert "nan" not in svg


def test_eight_runs_have_eight_markers_and_the_ninth_a_dash():
    shapes = {re.sub(r' class="r\d"', "", swatch(run).replace(f"r{run}", "")) for run in range(8)}
    assert len(shapes) == 8
    assert "dasharray" not in swatch(7) and "dasharray" in swatch(8)
    assert marker(0, 1.0, 2.0) == marker(8, 1.0, 2.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    np.testing.assert_array_equal(decode(png_uri(image)), image.transpose(1, 2, 0).squeeze())


def test_large_images_are_shrunk_by_means_and_more_channels_are_left_out():
    image = np.random.default_rng(0).integers(0, 256, (4, 224, 225), dtype=np.uint8)
    decoded = decode(png_uri(image))
    assert decoded.shape == (74, 75, 3)
    assert decoded[0, 0, 0] == pytest.approx(image[0, :3, :3].mean(), abs=0.51)
