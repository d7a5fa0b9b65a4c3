//! The plot: a bar for each way and each number of tests at once, on a logarithmic scale.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::{Row, quantiles};

const WIDTH: u32 = 900;
const BAR: u32 = 14;
/// Room for the names.
const NAMES: u32 = 230;
/// Room for the axis below, with its title, and above.
const AXIS: u32 = 60;
const COLORS: [RGBColor; 2] = [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xf0, 0x9a, 0x36)];

/// Draws the medians of those that could be measured.
pub(super) fn write(path: &Path, rows: &[Row], threads: &[usize]) -> Result<(), Box<dyn Error>> {
    let measured: Vec<_> = rows.iter().filter(|row| row.is_measured()).map(|row| (row, &row.figures)).collect();
    let medians = |figures: &Vec<Vec<f64>>| figures.iter().map(|figures| quantiles(figures)[1]).collect::<Vec<_>>();
    let all: Vec<_> = measured.iter().flat_map(|(_, figures)| medians(figures)).collect();
    // Whole powers of ten; what costs less than nothing by the noise is drawn as nothing.
    let least = all.iter().copied().filter(|median| *median > 0.0).fold(f64::MAX, f64::min);
    let most = all.iter().copied().fold(0.0, f64::max);
    let axis = 10f64.powf(least.log10().floor())..10f64.powf(most.log10().ceil());
    let group = threads.len() as u32 * BAR + BAR / 2;
    let root = SVGBackend::new(path, (WIDTH, AXIS * 2 + group * measured.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let slots = measured.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin_right(40)
        .margin_top(AXIS / 2)
        .x_label_area_size(AXIS)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(axis.clone().log_scale(), -slots..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("milliseconds for one more empty test (median)")
        .x_label_formatter(&|x| format!("{x}"))
        .draw()?;
    let height = 1.0 / (threads.len() as f64 + 0.5);
    for (slot, (row, figures)) in measured.iter().enumerate() {
        let top = -(slot as f64) - height / 4.0;
        for (at, median) in medians(figures).into_iter().enumerate() {
            let edge = top - at as f64 * height;
            let corners = [(axis.start, edge), (median.max(axis.start), edge - height)];
            chart.draw_series([Rectangle::new(corners, COLORS[at % COLORS.len()].filled())])?;
        }
        let (_, y) = chart.backend_coord(&(axis.start, -(slot as f64) - 0.5));
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        let position = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Center,
        );
        root.draw_text(&row.name, &style.pos(position), (NAMES as i32 - 8, y))?;
    }
    for (at, threads) in threads.iter().enumerate() {
        let left = NAMES as i32 + at as i32 * 110;
        root.draw(&Rectangle::new([(left, 10), (left + 12, 22)], COLORS[at % COLORS.len()].filled()))?;
        root.draw_text(&format!("{threads} at once"), &("sans-serif", 13).into_font().color(&BLACK), (left + 18, 10))?;
    }
    root.present()?;
    Ok(())
}
