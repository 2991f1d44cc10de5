//! Plots as SVG, with nothing but rectangles, lines and text.

use std::fmt::Write;

/// A bar with a mark that it should not pass.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) mark: Option<f64>,
}

/// One line of a plot.
pub(super) struct Curve {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
}

const INK: &str = "#333333";
const FAINT: &str = "#dddddd";
const KEPT: &str = "#2a7fba";
const MISSED: &str = "#d9603b";
const COLOURS: [&str; 6] = ["#d9603b", "#2a7fba", "#5b9a3c", "#8b62b5", "#b8902b", "#777777"];

/// Horizontal bars on a scale from 0, the peer's being 1.
pub(super) fn bars(heading: &str, bars: &[Bar]) -> String {
    const LEFT: f64 = 230.0;
    const SCALE: f64 = 380.0;
    const LINE: f64 = 20.0;
    let height = 50.0 + LINE * bars.len() as f64 + 24.0;
    let bottom = height - 24.0;
    // Longer bars are cut: what counts is that they miss.
    let most = bars.iter().map(|bar| bar.value).fold(1.2, f64::max).min(2.5);
    let x = |value: f64| LEFT + value.min(most) / most * SCALE;
    let mut body = String::new();
    for tick in 0..=(most * 4.0) as u32 {
        let value = f64::from(tick) / 4.0;
        let colour = if tick == 4 { INK } else { FAINT };
        line(&mut body, (x(value), 40.0), (x(value), bottom), colour, 1.0);
        if tick % 2 == 0 {
            text(&mut body, (x(value), bottom + 16.0), "middle", &format!("{value}"));
        }
    }
    for (index, bar) in bars.iter().enumerate() {
        let top = 44.0 + LINE * index as f64;
        let kept = bar.mark.is_none_or(|mark| bar.value <= mark);
        let colour = if kept { KEPT } else { MISSED };
        let width = x(bar.value) - LEFT;
        let _ = writeln!(
            body,
            "<rect x='{LEFT}' y='{top:.1}' width='{width:.1}' height='14' fill='{colour}'/>"
        );
        text(&mut body, (LEFT - 8.0, top + 11.0), "end", &bar.label);
        text(&mut body, (x(bar.value) + 5.0, top + 11.0), "start", &format!("{:.2}", bar.value));
        if let Some(mark) = bar.mark {
            line(&mut body, (x(mark), top - 2.0), (x(mark), top + 16.0), "#000000", 2.0);
        }
    }
    let explained = format!("{heading}; black marks: at most");
    document(700.0, height, &explained, &body)
}

/// Panels beside each other, each with the same curves' other measure. Axes are logarithmic where
/// values span more than a factor of 20.
pub(super) fn curves(heading: &str, axis: &str, panels: &[(&str, Vec<Curve>)]) -> String {
    const WIDTH: f64 = 400.0;
    const HEIGHT: f64 = 320.0;
    let mut body = String::new();
    for (index, (what, curves)) in panels.iter().enumerate() {
        let left = WIDTH * index as f64 + 62.0;
        let right = WIDTH * (index + 1) as f64 - 16.0;
        let (top, bottom) = (44.0, HEIGHT - 44.0);
        let points = || curves.iter().flat_map(|curve| curve.points.iter());
        let across = Scale::of(points().map(|point| point.0), left, right);
        let up = Scale::of(points().map(|point| point.1), bottom, top);
        for tick in across.ticks() {
            let x = across.place(tick);
            line(&mut body, (x, top), (x, bottom), FAINT, 1.0);
            text(&mut body, (x, bottom + 14.0), "middle", &number(tick));
        }
        for tick in up.ticks() {
            let y = up.place(tick);
            line(&mut body, (left, y), (right, y), FAINT, 1.0);
            text(&mut body, (left - 5.0, y + 4.0), "end", &number(tick));
        }
        text(&mut body, (f64::midpoint(left, right), bottom + 30.0), "middle", axis);
        text(&mut body, (left, top - 6.0), "start", what);
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let mut path = String::new();
            for (x, y) in &curve.points {
                let (x, y) = (across.place(*x), up.place(*y));
                let _ = write!(path, "{x:.1},{y:.1} ");
                let _ = writeln!(body, "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='{colour}'/>");
            }
            let _ = writeln!(
                body,
                "<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
            );
        }
        if index == 0 {
            for (row, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
                let y = top + 16.0 + 16.0 * row as f64;
                line(&mut body, (left + 8.0, y - 4.0), (left + 26.0, y - 4.0), colour, 3.0);
                text(&mut body, (left + 31.0, y), "start", &curve.label);
            }
        }
    }
    document(WIDTH * panels.len() as f64, HEIGHT, heading, &body)
}

/// An axis: values to places.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0f64);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
        }
        let logarithmic = low > 0.0 && high / low > 20.0;
        match logarithmic {
            true => {
                (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()))
            }
            false => (low, high) = (0.0, if high > 0.0 { high * 1.1 } else { 1.0 }),
        }
        Self { low, high, from, to, logarithmic }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true => (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10()),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            let step = ((last - first) / 6 + 1) as usize;
            return (first..=last).step_by(step).map(|power| 10f64.powi(power)).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].iter().map(|n| n * power).find(|s| *s >= rough).unwrap_or(rough);
        (0..=(self.high / step) as u32).map(|n| f64::from(n) * step).collect()
    }
}

/// Short: `0.02`, `500`, `20k`, `3M`.
fn number(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{}G", v / 1e9),
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v if v >= 1.0 => format!("{}", (v * 100.0).round() / 100.0),
        v => format!("{}", (v * 1e5).round() / 1e5),
    }
}

fn line(body: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        body,
        "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' stroke='{colour}' stroke-width='{width}'/>"
    );
}

fn text(body: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(body, "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'>{text}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn document(width: f64, height: f64, heading: &str, body: &str) -> String {
    let heading = escaped(heading);
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' \
         font-family='sans-serif' font-size='11' fill='{INK}'>\n<title>{heading}</title>\n\
         <rect width='{width}' height='{height}' fill='#ffffff'/>\n\
         <text x='12' y='20' font-size='14'>{heading}</text>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        let scale = Scale::of([1.0, 4000.0].into_iter(), 0.0, 100.0);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0, 10000.0]);
        assert_eq!((scale.place(1.0), scale.place(10000.0)), (0.0, 100.0));
        let scale = Scale::of([3.0, 10.0].into_iter(), 0.0, 110.0);
        assert_eq!(scale.ticks(), [0.0, 5.0, 10.0]);
        assert!((scale.place(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(["0.02", "500", "20k", "3M"], [0.02, 500.0, 2e4, 3e6].map(number));
    }
}
