//! Line plots as SVG, without any library in the page.

use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// More points than these get no tooltip each: the page stays light.
const TOOLTIPS_MAX: usize = 400;

/// How a value becomes a place on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten.
    Log,
    /// Quantiles, by the number of nines.
    Nines,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A picture of some lines.
#[derive(Clone, Debug)]
pub struct Plot<'a> {
    /// For readers who do not see it.
    pub says: &'a str,
    /// What goes to the right, and its unit.
    pub x_label: &'a str,
    /// What goes up, and its unit.
    pub y_label: &'a str,
    /// How the one is laid out.
    pub x_scale: Scale,
    /// How the other is.
    pub y_scale: Scale,
    /// The lines, at most four.
    pub series: Vec<Series<'a>>,
}

/// An axis: where its values go, and the ticks on it.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that ends with its last value.
    fn tight(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let last = values.clone().fold(0.0_f64, f64::max);
        let mut axis = Self::new(scale, values);
        if scale == Scale::Linear && last > 0.0 {
            axis.high = last;
            axis.ticks.retain(|(value, _)| *value <= last);
        }
        axis
    }

    /// An axis that ends with a tick.
    fn new(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let high = values.clone().fold(0.0_f64, f64::max);
        match scale {
            Scale::Linear => {
                let step = nice_step(high);
                let high = step * (high / step).ceil().max(1.0);
                let ticks = multiples(step, high).into_iter().map(|value| (value, short(value))).collect();
                Self { scale, low: 0.0, high, ticks }
            }
            Scale::Log => {
                let low = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let low = if low.is_finite() { low.log10().floor() } else { 0.0 };
                let high = if high > 0.0 { high.log10().ceil().max(low + 1.0) } else { low + 1.0 };
                let ticks = multiples(1.0, high - low)
                    .into_iter()
                    .map(|power| (10_f64.powf(low + power), short(10_f64.powf(low + power))))
                    .collect();
                Self { scale, low, high, ticks }
            }
            Scale::Nines => {
                let names = ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
                let nines = values.filter(|value| *value < 1.0).map(nines).fold(1.0_f64, f64::max).min(5.0);
                let ticks = (0..=5_i32)
                    .zip(names)
                    .filter(|(power, _)| f64::from(*power) <= nines.ceil())
                    .map(|(power, name)| (1.0 - 10_f64.powi(-power), name.to_owned()))
                    .collect();
                Self { scale, low: 0.0, high: nines.ceil(), ticks }
            }
        }
    }

    /// Where a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(10_f64.powf(self.low)).log10(),
            Scale::Nines => nines(value).min(self.high),
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// The beginning of a page of its own: no script, no font, nothing from elsewhere. [`PAGE_END`] ends it.
#[must_use]
pub fn begin_page(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body><main>"
    )
}

/// What a page that [`begin_page`] has begun ends with.
pub const PAGE_END: &str = "</main></body></html>\n";

impl Plot<'_> {
    /// The picture, with its legend: a `<figure>` for a page that [`begin_page`] has begun.
    #[must_use]
    pub fn draw(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Axis::tight(self.x_scale, points().map(|(x, _)| *x));
        let y = Axis::new(self.y_scale, points().map(|(_, y)| *y));
        let mut out = String::new();
        let _ = write!(
            out,
            "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.says)
        );
        frame(&mut out, &x, &y, self);
        for (index, series) in self.series.iter().enumerate() {
            line(&mut out, index, series, &x, &y);
        }
        out.push_str("</svg><figcaption>");
        for (index, series) in self.series.iter().enumerate() {
            let _ = write!(out, "<span class=\"key k{index}\">{}</span>", escape(series.name));
        }
        out.push_str("</figcaption></figure>");
        out
    }
}

fn at_x(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)
}

fn at_y(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
}

fn frame(out: &mut String, x: &Axis, y: &Axis, plot: &Plot<'_>) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for (value, name) in &y.ticks {
        let at = at_y(y, *value);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{name}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    for (value, name) in &x.ticks {
        let at = at_x(x, *value);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/><text x=\"{at:.1}\" y=\"{:.1}\" class=\"middle\">{name}</text>",
            bottom + 16.0
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" class=\"middle label\">{}</text><text class=\"middle label\" transform=\"translate(14 {:.1}) rotate(-90)\">{}</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 8.0,
        escape(plot.x_label),
        f64::midpoint(TOP, bottom),
        escape(plot.y_label)
    );
}

fn line(out: &mut String, index: usize, series: &Series<'_>, x: &Axis, y: &Axis) {
    let places: Vec<(f64, f64)> =
        series.points.iter().map(|(at, value)| (at_x(x, *at), at_y(y, *value))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(out, "<polyline class=\"line k{index}\" points=\"{}\"/>", path.join(" "));
    if places.len() > TOOLTIPS_MAX {
        return;
    }
    for ((x, y), (at, value)) in places.iter().zip(&series.points) {
        let _ = write!(
            out,
            "<circle class=\"dot k{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}: {} at {}</title></circle>",
            escape(series.name),
            short(*value),
            position(*at)
        );
    }
}

/// Nines of a quantile: 0.99 has two.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}

/// 1, 2 or 5 times a power of ten, so that about five fit.
fn nice_step(high: f64) -> f64 {
    if high <= 0.0 {
        return 1.0;
    }
    let rough = high / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].map(|nice| nice * power).into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

/// 0, and all multiples up to `high`.
fn multiples(step: f64, high: f64) -> Vec<f64> {
    (0..=20_u32).map(|count| f64::from(count) * step).take_while(|value| *value <= high * 1.000_001).collect()
}

fn position(at: f64) -> String {
    if at.fract() == 0.0 { format!("{at:.0}") } else { format!("{at:.5}").trim_end_matches('0').to_owned() }
}

/// A number in at most four signs and a prefix.
#[must_use]
pub fn short(value: f64) -> String {
    let (scaled, prefix) = match value.abs() {
        large if large >= 1e6 => (value / 1e6, " M"),
        large if large >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        large if large >= 100.0 || scaled.fract() == 0.0 => 0,
        large if large >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{prefix}")
}

/// Text as it may stand in a page.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_and_have_ticks() {
        let linear = Axis::new(Scale::Linear, [0.0, 730.0].into_iter());
        assert!((linear.high - 800.0).abs() < 1e-9, "{}", linear.high);
        assert_eq!(linear.ticks.len(), 5);
        assert!((linear.place(400.0) - 0.5).abs() < 1e-9);
        let tight = Axis::tight(Scale::Linear, [0.0, 730.0].into_iter());
        assert_eq!(tight.ticks.len(), 4);
        assert!((tight.place(365.0) - 0.5).abs() < 1e-9);
        let log = Axis::new(Scale::Log, [20.0, 5000.0].into_iter());
        assert_eq!(
            log.ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>(),
            ["10", "100", "1000", "10 k"]
        );
        assert!((log.place(100.0) - 1.0 / 3.0).abs() < 1e-9);
        let nines = Axis::new(Scale::Nines, [0.0, 0.5, 0.999, 1.0].into_iter());
        assert!((nines.place(0.99) - 2.0 / 3.0).abs() < 1e-6, "{}", nines.place(0.99));
        assert!((nines.place(1.0) - 1.0).abs() < 1e-9);
        for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
            let empty = Axis::new(scale, std::iter::empty());
            assert!(empty.place(0.0).is_finite() && !empty.ticks.is_empty(), "{scale:?}");
        }
    }

    #[test]
    fn a_plot_is_one_picture_with_its_words_escaped() {
        let plot = Plot {
            says: "a < b",
            x_label: "seconds",
            y_label: "us",
            x_scale: Scale::Linear,
            y_scale: Scale::Log,
            series: vec![Series { name: "p\"50\"", points: vec![(0.0, 10.0), (1.0, 20.0)] }],
        };
        let svg = plot.draw();
        assert!(svg.contains("aria-label=\"a &lt; b\"") && svg.contains("p&quot;50&quot;"), "{svg}");
        assert_eq!((svg.matches("<svg").count(), svg.matches("<circle").count()), (1, 2));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (1234.5, "1234"),
            (12_345.0, "12.3 k"),
            (3e6, "3 M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
