//! Every picture is well-formed, says what it shows and holds no number that is not one.

use firebrick_report::plot::{
    Calibration, CalibrationBin, Cloud, Fit, Histograms, Line, LineChart, Sample, Scatter, Svg,
};
use proptest::prelude::*;

/// The texts of a picture, after checks that hold for every picture.
fn texts(svg: &Svg) -> Vec<String> {
    let document = roxmltree::Document::parse(svg.as_str()).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    for node in root.descendants() {
        for attribute in node.attributes().filter(|attribute| attribute.name() != "font-family") {
            for word in ["NaN", "inf"] {
                assert!(!attribute.value().contains(word), "{}: {}", attribute.name(), attribute.value());
            }
        }
    }
    let words = root.descendants().filter(|node| node.has_tag_name("text"));
    words.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect()
}

/// How often a picture has an element.
fn count(svg: &Svg, name: &str) -> usize {
    let document = roxmltree::Document::parse(svg.as_str()).unwrap();
    document.descendants().filter(|node| node.tag_name().name() == name).count()
}

fn line_chart(lines: Vec<Line>) -> Svg {
    LineChart { title: "Loss <&>".into(), x: "samples".into(), y: "loss (nats)".into(), lines }.to_svg()
}

#[test]
fn a_line_chart_names_all_that_it_shows() {
    let curve: Vec<_> = (0..=1000).map(|x| (f64::from(x) * 32.0, 1.0 / (1.0 + f64::from(x)))).collect();
    let band = curve.iter().map(|&(x, y)| (x, y - 0.1, y + 0.1)).collect();
    let lines =
        vec![Line::new("train & <test>", curve.clone()).smoothed(0.9), Line::new("β = 0.1", curve).with_band(band)];
    let svg = line_chart(lines);
    let texts = texts(&svg);
    for text in ["Loss <&>", "samples", "loss (nats)", "train & <test>", "β = 0.1", "0", "10k", "20k", "30k"] {
        assert!(texts.iter().any(|shown| shown == text), "{text} is not among {texts:?}");
    }
    assert!(!texts.iter().any(|text| text.contains("not finite")));
    assert_eq!(count(&svg, "polygon"), 1);
}

#[test]
fn what_is_not_finite_is_left_out_and_counted() {
    let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, f64::INFINITY), (f64::NAN, 1.0), (3.0, 2.0)];
    assert!(texts(&line_chart(vec![Line::new("a", points)])).contains(&"3 points not finite, left out".into()));
    // A range from −f64::MAX to f64::MAX would overflow.
    let huge = vec![(0.0, f64::MAX), (1.0, f64::MIN), (2.0, 1e299)];
    assert!(texts(&line_chart(vec![Line::new("a", huge)])).contains(&"2 points not finite, left out".into()));
    let bins = vec![CalibrationBin { predicted: 0.5, observed: f64::NAN, count: 3 }];
    let svg = Calibration { title: String::new(), bins }.to_svg();
    assert!(texts(&svg).contains(&"1 point not finite, left out".into()));
}

#[test]
fn empty_charts_say_so() {
    let nothing = vec![
        line_chart(vec![]),
        line_chart(vec![Line::new("a", vec![(f64::NAN, 1.0)])]),
        Scatter::default().to_svg(),
        Calibration::default().to_svg(),
        Calibration {
            bins: vec![CalibrationBin { predicted: 0.5, observed: f64::NAN, count: 0 }],
            ..Default::default()
        }
        .to_svg(),
        Histograms { samples: vec![Sample::default()], ..Default::default() }.to_svg(),
    ];
    for svg in nothing {
        assert!(texts(&svg).contains(&"no data".into()));
    }
}

#[test]
fn an_empty_series_leaves_the_others_alone() {
    let svg = line_chart(vec![Line::new("none", vec![]).smoothed(0.5), Line::new("one", vec![(1.0, 2.0)])]);
    let texts = texts(&svg);
    assert!(texts.contains(&"none".into()) && texts.contains(&"one".into()) && !texts.contains(&"no data".into()));
    // A single point is a dot.
    assert_eq!(count(&svg, "circle"), 1);
}

#[test]
fn a_scatter_has_its_points_its_fits_and_its_note() {
    let cloud = Cloud {
        name: "52M".into(),
        points: vec![(0.0, 1.0), (1.0, 2.0), (2.0, 3.5)],
        fit: Some(Fit { slope: 1.25, intercept: 0.9 }),
    };
    let without_fit = Cloud { name: "13M".into(), fit: Some(Fit { slope: f64::NAN, intercept: 0.0 }), ..cloud.clone() };
    let chart = Scatter {
        title: "Reward against √KL".into(),
        x: "√KL (√nats)".into(),
        y: "reward".into(),
        clouds: vec![cloud, without_fit],
        note: "slope 1.25\nR² 0.99".into(),
    };
    let svg = chart.to_svg();
    let texts = texts(&svg);
    for text in ["52M", "13M", "slope 1.25", "R² 0.99", "√KL (√nats)"] {
        assert!(texts.contains(&text.into()), "{text} is not among {texts:?}");
    }
    // Three points a cloud and a dot for each in the legend.
    assert_eq!(count(&svg, "circle"), 8);
}

#[test]
fn a_calibration_plot_sizes_its_points_by_area() {
    let bin = |predicted, count| CalibrationBin { predicted, observed: predicted, count };
    let svg = Calibration { title: "PM".into(), bins: vec![bin(0.2, 400), bin(0.9, 100)] }.to_svg();
    assert!(["400", "100", "perfectly calibrated"].iter().all(|&text| texts(&svg).contains(&text.into())));
    let document = roxmltree::Document::parse(svg.as_str()).unwrap();
    let radii: Vec<_> = document.descendants().filter_map(|node| node.attribute("r")).collect();
    // The legend's dot, then radii as √400 : √100 = 26 : 13.
    assert_eq!(radii, ["9", "26", "13"]);
    // The count of the low bin stands above its point, that of the high one below.
    let heights = |name: &str, attribute: &str| -> Vec<i32> {
        let nodes = document.descendants().filter(|node| node.has_tag_name(name));
        let shown =
            nodes.filter(|node| node.has_tag_name("circle") || ["400", "100"].contains(&node.text().unwrap().trim()));
        shown.map(|node| node.attribute(attribute).unwrap().parse().unwrap()).collect()
    };
    let (points, counts) = (heights("circle", "cy"), heights("text", "y"));
    assert!(counts[0] < points[1] - 26 && points[2] + 13 < counts[1], "{points:?} {counts:?}");
}

#[test]
fn histograms_say_how_large_their_samples_are() {
    let sample = |name: &str, values: &[f64]| Sample { name: name.into(), values: values.to_vec() };
    let samples = vec![sample("chosen", &[1.0, 2.0, 3.0]), sample("rejected", &[0.0, f64::NAN])];
    let svg = Histograms { title: "Scores".into(), x: "score".into(), samples }.to_svg();
    let texts = texts(&svg);
    for text in ["chosen (n = 3)", "rejected (n = 1)", "1 point not finite, left out", "share of the sample"] {
        assert!(texts.contains(&text.into()), "{text} is not among {texts:?}");
    }
}

#[test]
fn a_long_run_makes_a_small_picture() {
    let points: Vec<_> = (0..1_000_000).map(|step| (f64::from(step), f64::from(step % 97))).collect();
    let svg = line_chart(vec![Line::new("a", points)]);
    assert!(svg.as_str().len() < 80_000, "{} bytes", svg.as_str().len());
}

#[test]
fn a_long_legend_makes_a_higher_picture() {
    let height = |names: usize| -> u32 {
        let line =
            |index| Line::new(format!("a name of the series with the number {index}"), vec![(0.0, 0.0), (1.0, 1.0)]);
        let svg = line_chart((0..names).map(line).collect());
        let document = roxmltree::Document::parse(svg.as_str()).unwrap();
        document.root_element().attribute("height").unwrap().parse().unwrap()
    };
    // One such name takes more than half of a row of 1280 pixels, and a row is 40 pixels high.
    assert_eq!((height(1), height(2), height(60)), (800, 840, 800 + 59 * 40));
}

#[test]
fn characters_that_xml_forbids_do_not_break_a_picture() {
    assert!(texts(&line_chart(vec![Line::new("a\0b\u{1b}[0m\u{ffff}", vec![])])).contains(&"ab[0m".into()));
}

proptest! {
    #[test]
    fn any_numbers_and_names_make_a_picture(
        numbers in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>()), 0..30),
        name in ".*",
    ) {
        let points: Vec<_> = numbers.iter().map(|&(x, y, _)| (x, y)).collect();
        texts(&line_chart(vec![Line::new(name.clone(), points.clone()).with_band(numbers.clone()).smoothed(0.9)]));
        let fit = numbers.first().map(|&(slope, intercept, _)| Fit { slope, intercept });
        let clouds = vec![Cloud { name: name.clone(), points, fit }];
        texts(&Scatter { title: name.clone(), x: name.clone(), y: name.clone(), clouds, note: name.clone() }.to_svg());
        let values = numbers.iter().map(|number| number.0).collect();
        texts(&Histograms { title: name.clone(), x: name.clone(), samples: vec![Sample { name, values }] }.to_svg());
    }
}
