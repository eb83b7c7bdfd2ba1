//! Small plots of the last hour, as inline SVG.

use std::fmt::Write as _;

/// One bar's place and its width, in the units of the plot.
const STEP: usize = 4;
const BAR: usize = 3;
const HEIGHT: u64 = 40;

/// A plot of one value a minute. `label` is for those who cannot see it.
pub fn bars(values: &[u64], label: &str) -> String {
    let peak = values.iter().copied().max().unwrap_or(0).max(1);
    let width = values.len() * STEP;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">"
    );
    for (at, value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
        // The smallest value is still seen.
        let height = (value * HEIGHT / peak).max(2);
        let _ = write!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{BAR}\" height=\"{height}\"/>",
            at * STEP,
            HEIGHT - height
        );
    }
    let _ = write!(
        out,
        "<path d=\"M0 {HEIGHT}H{width}\" vector-effect=\"non-scaling-stroke\"/></svg>"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_for_each_minute_with_something_in_it() {
        let svg = bars(&[0, 5, 10, 0, 1], "l");
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("viewBox=\"0 0 20 40\""), "{svg}");
        assert!(svg.contains("<rect x=\"8\" y=\"0\" width=\"3\" height=\"40\"/>"));
        assert_eq!(bars(&[], "l").matches("<rect").count(), 0);
        let huge = bars(&[u64::MAX / 64, 1], "l");
        assert!(huge.contains("height=\"2\""), "{huge}");
    }
}
