import base64
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from ssl_ebm.report.looks import Look
from ssl_ebm.report.page.figures.axes import exponents, number, spread, ticks
from ssl_ebm.report.page.figures.clouds import cloud
from ssl_ebm.report.page.figures.curves import POINTS, Line, line_chart, thin
from ssl_ebm.report.page.figures.heat_maps import heat_map
from ssl_ebm.report.page.figures.images import png_uri
from ssl_ebm.report.page.figures.ranks import rank_chart
from ssl_ebm.report.page.figures.ridges import ridges
from ssl_ebm.report.page.figures.scatter import Point, scatter


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
        [Line([(0.0, 0.0), (10.0, 1.0)], Look.of(0)), Line([(0.0, 1.0), (10.0, 0.0)], Look.of(1))],
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
    svg = line_chart([Line(points, Look.of(0)), Line([], Look.of(1))], title="t", x_label="x", y_label="y")
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


def test_logarithmic_axis_names_powers_of_ten():
    svg = line_chart(
        [Line([(-5.0, 0.5), (2.0, 0.6)], Look.of(0), ring=1)], title="t", x_label="C", y_label="y", log_x=True
    )
    assert {"1e−5", "0.01", "100"} <= set(texts(svg))
    assert 'class="ring"' in svg


def test_ridges_put_low_energies_to_the_left_and_scale_each_to_its_peak():
    low, high = [0] * 100, [0] * 100
    low[10:20], high[80:90] = [1000] * 10, [3] * 10
    svg = ridges(
        [("near", low), ("far", high)], np.linspace(-1, 1, 101).tolist(), look=Look.of(2), title="t", x_label="E = <b>"
    )
    near, far = (float(x) for x in re.findall(r'class="median" x1="([\d.]+)"', svg))
    assert near < 60 and far > 300, "medians, of an axis cropped to where there are pairs"
    heights = [[float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", d)] for d in re.findall(r'd="([^"]+)"', svg)]
    assert [max(h) - min(h) for h in heights] == [36, 36]
    assert svg.count('class="r2"') == 1, "the first alone in the run's colour"
    assert {"near", "far", "E = <b>", "← compatible"} <= set(texts(svg))


def test_ridges_cut_outliers_and_no_more():
    edges = np.linspace(0, 100, 101).tolist()

    def last_tick(counts):
        svg = ridges([("a", counts)], edges, look=Look.of(0), title="t", x_label="E")
        return max(float(text) for text in texts(svg) if text.isdigit())

    assert last_tick([1000] * 10 + [0] * 89 + [5]) == 10, "0.05% lie far away"
    assert last_tick([1000] * 10 + [0] * 89 + [50]) == 100, "0.5%"
    assert last_tick([1000] * 100) == 100


def test_ridges_of_one_bin_and_of_a_kind_without_pairs():
    counts = [0] * 100
    counts[50] = 7
    svg = ridges(
        [("one", counts), ("none", [0] * 100)], np.linspace(0, 1, 101).tolist(), look=Look.of(0), title="t", x_label="E"
    )
    ElementTree.fromstring(svg)
    assert "nan" not in svg


def test_eight_runs_have_eight_markers_and_the_ninth_a_dash():
    shapes = {re.sub(r"r\d", "", Look.of(run).swatch()) for run in range(8)}
    assert len(shapes) == 8
    assert "dasharray" not in Look.of(7).swatch() and "dasharray" in Look.of(8).swatch()
    assert Look.of(0).marker(1.0, 2.0) == Look.of(8).marker(1.0, 2.0)


def test_names_at_the_ends_of_curves_keep_their_order_and_their_distance():
    lines = [Line([(0.0, 0.0), (1.0, 0.5 + 0.001 * i)], Look.of(i), f"run <{i}>") for i in range(20)]
    svg = line_chart(lines, title="t", x_label="x", y_label="y", size=(440, 100), named=True)
    places = {t: float(y) for y, t in re.findall(r'class="label end" x="[\d.]+" y="([\d.]+)"[^>]*>run &lt;(\d+)', svg)}
    ordered = [places[str(i)] for i in range(20)]
    assert all(a - b >= 12 - 0.11 for a, b in zip(ordered, ordered[1:], strict=False)), "higher values are above"
    height = float(re.search(r'viewBox="0 0 440 (\d+)"', svg)[1])
    assert height >= 20 * 12 and min(ordered) > 0 and max(ordered) < height
    assert "run &lt;0" not in line_chart(lines, title="t", x_label="x", y_label="y")


def test_names_at_the_left_move_the_numbers_to_the_right():
    lines = [Line([(-3.0, 0.2), (0.0, 1.0)], Look.of(0), "one")]
    charts = [
        line_chart(
            lines, title="t", x_label="x", y_label="y", y_domain=(0.0, 1.0), log_x=True, ends="left", named=named
        )
        for named in (False, True)
    ]
    numbers = [re.search(r'<text x="(\d+)" y="[\d.]+" text-anchor="(end|start)">0.5<', chart) for chart in charts]
    assert numbers[0][2] == "end" and int(numbers[0][1]) < 50
    assert numbers[1][2] == "start" and int(numbers[1][1]) > 390


def test_other_seeds_are_faint_and_below():
    lines = [Line([(0.0, 0.0), (1.0, 1.0)], Look.of(3)), Line([(0.0, 0.0), (1.0, 0.9)], Look.of(3), faint=True)]
    svg = line_chart(lines, title="t", x_label="x", y_label="y")
    assert svg.index('class="r3 faint"') < svg.index('class="r3"')


@pytest.mark.parametrize("seed", range(5))
def test_spread_is_the_nearest_placement_with_gaps(seed):
    random = np.random.default_rng(seed)
    wanted = random.uniform(0, 60, 8).tolist()
    places = spread(wanted, 10.0, -100.0, 200.0)
    order = np.argsort(wanted)
    gaps = np.diff(np.array(places)[order])
    assert (gaps >= 10 - 1e-9).all()
    cost = np.square(np.subtract(places, wanted)).sum()
    for _ in range(300):  # no other placement that keeps the gaps is nearer
        other = np.array(places)[order] + random.normal(scale=3, size=8)
        other = np.maximum.accumulate(other - 10.0 * np.arange(8)) + 10.0 * np.arange(8)
        assert np.square(other - np.array(wanted)[order]).sum() >= cost - 1e-9


def test_spread_stays_inside_and_leaves_alone_what_has_room():
    assert spread([5.0, 50.0, 20.0], 10.0, 0.0, 100.0) == [5.0, 50.0, 20.0]
    assert spread([99.0, 98.0], 10.0, 0.0, 100.0) == [100.0, 90.0]
    assert spread([1.0, 2.0, 3.0], 10.0, 0.0, 5.0) == [0.0, 10.0, 20.0], "too narrow: from the low end on"


def test_exponents_are_whole_or_the_ends():
    assert exponents(-3.2, 0.0) == [-3.0, -2.0, -1.0, 0.0]
    assert exponents(-1.8, -1.2) == [-1.8, -1.2]


def test_scatter_names_do_not_cover_each_other():
    points = [Point(1.0 + 0.01 * i, 0.9 - 0.01 * i, Look.of(i), f"objective{i}", 0.85, 0.95) for i in range(6)]
    svg = scatter(points, title="t", x_label="minutes", y_label="y")
    ElementTree.fromstring(svg)
    found = re.findall(r'class="label end" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">(\w+)<', svg)
    assert [name for *_, name in found] == [f"objective{i}" for i in range(6)], "from the top down"
    boxes = []
    for x, y, anchor, name in found:
        left = float(x) - {"start": 0, "middle": 0.5, "end": 1}[anchor] * 6.2 * len(name)
        boxes.append((left, float(y) - 9, left + 6.2 * len(name), float(y) + 2))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            assert wide <= 0 or high <= 2
    xs = [float(x) for x in re.findall(r'<line class="line" x1="([\d.]+)"', svg)]
    assert len(xs) == 6 and xs == sorted(xs)


def test_heat_map_has_every_cell_and_leaves_out_nan():
    matrix = np.array([[1.0, 0.2, np.nan], [0.2, 1.0, 0.6], [np.nan, 0.6, 1.0]])
    svg = heat_map(["a", "b", "<c>"], matrix, title="t", show="{:.2f}".format)
    opacities = [float(v) for v in re.findall(r'fill-opacity="([\d.]+)"', svg)]
    assert len(opacities) == 7 and svg.count("<title>") == 8
    assert opacities[1] == 0.04 and opacities[4] == 0.55, "lowest and highest off the diagonal"
    assert "b, &lt;c&gt;: 0.60" in svg and texts(svg).count("0.20") == 2
    large = heat_map([f"n{i}" for i in range(13)], np.eye(13), title="t", show="{:.2f}".format)
    assert not {"1.00", "0.00"} & set(texts(large)), "no room for numbers"


def test_rank_chart_orders_names_and_joins_groups():
    ranks = {"worst": 3.0, "best": 1.2, "middle": 1.8}
    svg = rank_chart(
        ranks, [["middle", "best"], ["worst"]], looks={"best": Look.of(1)}, title="t", x_label="mean rank, 1 is best"
    )
    assert [text for text in texts(svg) if text in ranks] == ["best", "middle", "worst"]
    assert svg.count('class="bar"') == 1 and svg.count('class="joint"') == 1, "a group of one has no bar"
    rows = {name: float(y) - 4 for y, name in re.findall(r'y="([\d.]+)" text-anchor="end">(\w+)<', svg)}
    top, bottom = (float(v) for v in re.search(r'class="bar" d="M\d+ ([\d.]+)V([\d.]+)"', svg).groups())
    assert (top, bottom) == (pytest.approx(rows["best"]), pytest.approx(rows["middle"]))
    dots = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert 'class="r1"' in svg and svg.count('class="other"') == 2 and len(dots) == 2


def test_cloud_has_every_point_once_in_its_classs_colour():
    points = np.random.default_rng(0).normal(size=(50, 2)) * [10, 1]
    svg = cloud(points, np.arange(50) % 12, title="t")
    dots = {style: 0 for style in (*(f"r{i}" for i in range(10)), "other")}
    for style, path in re.findall(r'class="dots (\w+)" d="([^"]+)"', svg):
        dots[style] += path.count("h0")
    assert sum(dots.values()) == 50 and dots["r0"] == 5 and dots["other"] == 8
    at = np.array([[int(x), int(y)] for x, y in re.findall(r"M(\d+) (\d+)h0", svg)])
    assert at.min() >= 10 and at.max() <= 590
    assert np.ptp(at[:, 0]) == 580 and np.ptp(at[:, 1]) < 200, "one scale for both axes"


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    np.testing.assert_array_equal(decode(png_uri(image)), image.transpose(1, 2, 0).squeeze())


def test_names_and_titles_are_escaped_once():
    hostile = "<b> & 'x'"
    line = Line([(0.0, 0.0), (1.0, 1.0)], Look.of(0), hostile)
    charts = [
        line_chart([line], title=hostile, x_label=hostile, y_label=hostile, named=True),
        scatter([Point(1.0, 1.0, Look.of(0), hostile)], title=hostile, x_label=hostile, y_label=hostile),
        ridges([(hostile, [1, 2])], [0.0, 1.0, 2.0], look=Look.of(0), title=hostile, x_label=hostile),
        rank_chart({hostile: 1.0, "other": 2.0}, [], looks={}, title=hostile, x_label=hostile),
        heat_map([hostile, "other"], np.eye(2), title=hostile, show=str),
        cloud(np.eye(2), np.arange(2), title=hostile),
    ]
    for chart in charts:
        assert isinstance(chart, Markup) and "<b>" not in chart
        root = ElementTree.fromstring(chart)
        assert root.attrib["aria-label"] == root[0].text == hostile
        assert all("&" not in words or hostile in words for words in root.itertext())
    assert sum(hostile in texts(chart) for chart in charts) == 5, "all but the cloud write names"


def test_large_images_are_shrunk_by_means_and_more_channels_are_left_out():
    image = np.random.default_rng(0).integers(0, 256, (4, 224, 225), dtype=np.uint8)
    decoded = decode(png_uri(image))
    assert decoded.shape == (75, 75, 3)
    assert decoded[0, 0, 0] == pytest.approx(image[0, :3, :3].mean(), abs=0.51)
    assert decoded[-1, 0, 1] == pytest.approx(image[1, -2:, :3].mean(), abs=0.51), "what is left at the edge"
