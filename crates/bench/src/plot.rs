//! A line plot as SVG: few lines, each with its points and the spread of each point.
//! Colours come from the style of the page, so that they follow its light or dark scheme.

use std::fmt::Write;

use super::figure::digits;

/// The contents of a plot.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    /// The unit of the vertical axis, if it has one.
    pub(crate) y: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// The horizontal axis.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    /// The labels and their positions, from left to right, on the scale of the points.
    pub(crate) labels: Vec<(f64, String)>,
}

/// The line of a server.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// The server, which determines the colour.
    pub(crate) colour: usize,
    /// The case, which determines the dash style, one of [`DASHES`].
    pub(crate) dash: usize,
    pub(crate) points: Vec<Point>,
    /// Whether points are marked; not on a curve of very many points.
    pub(crate) is_marked: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Minimum and maximum.
    pub(crate) spread: (f64, f64),
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// The space of a label of the horizontal axis.
const LABEL: f64 = 48.0;
/// With more lines, styles would repeat.
pub(crate) const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

impl Plot {
    /// Returns the figure, with its legend.
    pub(crate) fn svg(&self) -> String {
        let mut out = String::new();
        let title = match self.y {
            "" => escape(&self.title),
            unit => escape(&format!("{}, {unit}", self.title)),
        };
        let _ = write!(out, "<figure><figcaption>{title}</figcaption>");
        self.legend(&mut out);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        let scale = Scale::of(self);
        self.grid(&mut out, &scale);
        for line in &self.lines {
            line.draw(&mut out, &scale);
        }
        out.push_str("</svg></figure>\n");
        out
    }

    fn legend(&self, out: &mut String) {
        out.push_str("<p class=\"legend\">");
        for line in &self.lines {
            let _ = write!(
                out,
                "<span><svg viewBox=\"0 0 28 8\"><path class=\"line c{}\" stroke-dasharray=\"{}\" \
                 d=\"M0 4H28\"/></svg>{}</span>",
                line.colour % 2,
                DASHES[line.dash],
                escape(&line.name)
            );
        }
        out.push_str("</p>");
    }

    fn grid(&self, out: &mut String, scale: &Scale) {
        let right = WIDTH - RIGHT;
        let mut tick = 0.0;
        while tick <= scale.y_max * 1.001 {
            let y = scale.y(tick);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                label(tick, scale.y_step)
            );
            tick += scale.y_step;
        }
        let mut room_from = f64::NEG_INFINITY;
        for (at, text) in &self.x.labels {
            let x = scale.x(*at);
            // Labels that would overlap are omitted.
            if x < room_from {
                continue;
            }
            room_from = x + LABEL;
            let _ = write!(
                out,
                "<text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM + 18.0,
                escape(text)
            );
        }
        let _ = write!(
            out,
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 6.0,
            escape(self.x.name),
        );
    }
}

impl Line {
    fn draw(&self, out: &mut String, scale: &Scale) {
        let mut path = String::new();
        for (number, point) in self.points.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            let (x, y) = (scale.x(point.x), scale.y(point.y));
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        let colour = self.colour % 2;
        let dash = DASHES[self.dash];
        let _ = write!(
            out,
            "<path class=\"line c{colour}\" stroke-dasharray=\"{dash}\" d=\"{path}\"/>"
        );
        if !self.is_marked {
            return;
        }
        for point in &self.points {
            let (x, y) = (scale.x(point.x), scale.y(point.y));
            let (least, most) = (scale.y(point.spread.0), scale.y(point.spread.1));
            let _ = write!(
                out,
                "<path class=\"spread c{colour}\" d=\"M{x:.1} {least:.1}V{most:.1}\"/>\
                 <circle class=\"dot c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">\
                 <title>{}: {} ({} to {})</title></circle>",
                escape(&self.name),
                digits(point.y),
                digits(point.spread.0),
                digits(point.spread.1)
            );
        }
    }
}

/// The scales of a plot.
struct Scale {
    x_min: f64,
    x_max: f64,
    y_max: f64,
    y_step: f64,
}

impl Scale {
    /// Heights begin at zero, so that they can be compared.
    fn of(plot: &Plot) -> Scale {
        let points = || plot.lines.iter().flat_map(|line| &line.points);
        let labels = plot.x.labels.iter().map(|(at, _)| *at);
        let xs = || points().map(|point| point.x);
        let x_min = xs().chain(labels.clone()).fold(f64::INFINITY, f64::min);
        let x_max = xs().chain(labels).fold(f64::NEG_INFINITY, f64::max);
        let highest = points().map(|point| point.y.max(point.spread.1));
        let highest = highest.fold(0.0, f64::max).max(1e-9);
        let power = 10_f64.powf((highest / 5.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let y_step = steps.into_iter().find(|step| highest / step <= 6.0);
        let y_step = y_step.unwrap_or(power * 10.0);
        Scale {
            x_min,
            x_max,
            y_max: (highest / y_step).ceil() * y_step,
            y_step,
        }
    }

    fn x(&self, x: f64) -> f64 {
        let room = WIDTH - LEFT - RIGHT;
        match self.x_max - self.x_min {
            0.0 => LEFT + room / 2.0,
            // Away from the edges, where dots and labels would be cut off.
            width => LEFT + room * (0.03 + 0.94 * (x - self.x_min) / width),
        }
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y.max(0.0) / self.y_max
    }
}

fn label(value: f64, step: f64) -> String {
    match step {
        step if step >= 1.0 => digits(value.round()).replace(".00", "").replace(".0", ""),
        step if step >= 0.1 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Escapes text for HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_within_the_frame_and_text_is_escaped() {
        let point = |x, y| Point {
            x,
            y,
            spread: (y * 0.9, y * 1.2),
        };
        let line = Line {
            name: "a<b".into(),
            colour: 0,
            dash: 0,
            points: vec![point(1.0, 5.2), point(4.0, 6.6)],
            is_marked: true,
        };
        let plot = Plot {
            title: "CPU".into(),
            x: Axis {
                name: "clients",
                labels: vec![(1.0, "10".into()), (4.0, "10,000".into())],
            },
            y: "µs",
            lines: vec![line],
        };
        let scale = Scale::of(&plot);
        assert_eq!((scale.y_max, scale.y_step), (8.0, 2.0));
        assert!(scale.x(1.0) > LEFT && scale.x(4.0) < WIDTH - RIGHT);
        let svg = plot.svg();
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn one_point_is_in_the_middle() {
        let scale = Scale {
            x_min: 3.0,
            x_max: 3.0,
            y_max: 1.0,
            y_step: 1.0,
        };
        assert_eq!(scale.x(3.0), f64::midpoint(LEFT, WIDTH - RIGHT));
    }
}
