//! temporary
use firebrick_report::page::*;
use firebrick_report::plot::*;
use firebrick_report::tensorboard::EventWriter;
fn main() {
    let mut s: u64 = 12345;
    let mut u = move || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((s >> 33) as f64) / (1u64 << 31) as f64
    };
    let mut n = move || (0..12).map(|_| u()).sum::<f64>() - 6.0;
    let loss: Vec<_> =
        (0..2000).map(|i| (i as f64 * 32.0, 0.35 + 0.34 * (-(i as f64) / 300.0).exp() + 0.05 * n())).collect();
    let val: Vec<_> =
        (0..40).map(|i| (i as f64 * 1600.0, 0.40 + 0.29 * (-(i as f64) / 6.0).exp() + 0.005 * n())).collect();
    let band: Vec<_> = val.iter().map(|&(x, y)| (x, y - 0.02, y + 0.02)).collect();
    let mut bad = loss.clone();
    bad[5].1 = f64::NAN;
    bad[9].1 = f64::NAN;
    let c1 = LineChart {
        title: "Preference model loss".into(),
        x: "comparisons seen".into(),
        y: "loss (nats)".into(),
        lines: vec![
            Line::new("train", bad).smoothed(0.95),
            Line::new("validation (95 % interval)", val.clone()).with_band(band),
        ],
    }
    .to_svg();
    let lr: Vec<_> = (0..500).map(|i| (i as f64, 1e-5 * (1.0 - i as f64 / 500.0))).collect();
    let c2 = LineChart {
        title: "Learning rate".into(),
        x: "optimiser step".into(),
        y: "learning rate".into(),
        lines: vec![Line::new("Adam", lr)],
    }
    .to_svg();
    let many = (0..8)
        .map(|k| {
            Line::new(
                format!("seed {k}, β = 0.0{k}"),
                (0..200)
                    .map(|i| (i as f64 * 1e4, -1e3 + 100.0 * k as f64 * (1.0 - (-(i as f64) / 50.0).exp()) + 5.0 * n()))
                    .collect(),
            )
        })
        .collect();
    let c3 = LineChart {
        title: "Many series with a long heading that goes on to see whether it is made smaller where needed".into(),
        x: "samples".into(),
        y: "objective/rlhf_reward".into(),
        lines: many,
    }
    .to_svg();
    let cloud = |name: &str, sl: f64, ic: f64, n: &mut dyn FnMut() -> f64| Cloud {
        name: name.into(),
        points: (0..80)
            .map(|i| {
                let x = i as f64 / 20.0;
                (x, ic + sl * x + 0.12 * n())
            })
            .collect(),
        fit: Some(Fit { slope: sl, intercept: ic }),
    };
    let clouds = vec![cloud("test PM", 0.62, 0.1, &mut n), cloud("train PM", 0.8, 0.05, &mut n)];
    let c4 = Scatter {
        title: "Reward against √KL".into(),
        x: "√KL (√nats)".into(),
        y: "reward".into(),
        clouds,
        note: "slope 0.62 ± 0.03\nR² = 0.97 (KL: 0.91)".into(),
    }
    .to_svg();
    let bins = (0..10)
        .map(|i| {
            let p = 0.05 + i as f64 * 0.1;
            CalibrationBin {
                predicted: p,
                observed: (p + 0.03 * n()).clamp(0.0, 1.0),
                count: (1000.0 * (1.0 - (2.0 * p - 1.0).powi(2))) as usize + 8,
            }
        })
        .collect();
    let c5 = Calibration { title: "Preference model calibration".into(), bins }.to_svg();
    let c6 = Histograms {
        title: "Scores of test answers".into(),
        x: "preference model score".into(),
        samples: vec![
            Sample { name: "chosen".into(), values: (0..1200).map(|_| 0.8 + n()).collect() },
            Sample { name: "rejected".into(), values: (0..1100).map(|_| -0.5 + 1.2 * n()).collect() },
        ],
    }
    .to_svg();
    let c7 = LineChart::default().to_svg();
    let c8 = LineChart {
        title: "A constant far from zero".into(),
        x: "step".into(),
        y: "value".into(),
        lines: vec![Line::new("c", vec![(0.0, 1234567.0), (1.0, 1234567.0)])],
    }
    .to_svg();
    let c9 = Scatter {
        title: "Alignment tax".into(),
        x: "samples".into(),
        y: "accuracy".into(),
        clouds: vec![cloud("falls", -0.4, 1.0, &mut n)],
        note: "slope −0.40".into(),
    }
    .to_svg();
    for (i, c) in [&c1, &c2, &c3, &c4, &c5, &c6].iter().enumerate() {
        println!("{i} {}", c.as_str().len());
    }
    let f = |svg: &Svg, c: &str| Figure { svg: svg.clone(), caption: c.into() };
    let st = |s: &str| s.to_string();
    let row = |e, c: &[&str]| Row { cells: c.iter().map(|s| s.to_string()).collect(), emphasis: e };
    let page=Page{title:"Tarvik, 10M: from raw dialogues to an aligned policy".into(),summary:"The aligned policy wins 72 % of comparisons against the base model under a held-out preference model, at a KL of 9.4 nats. All eight checks passed but one.".into(),
     sections:vec![
      Section{title:"Overview".into(),blocks:vec![
        Block::Callout(Tone::Good,st("Reward rose linearly in √KL over the first half of training (R² 0.97), as published.")),
        Block::Callout(Tone::Warn,st("Answers grew by 31 % in length; part of the gain may be a length bias.")),
        Block::Facts(vec![(st("recipe"),st("recipes/tarvik-10m.toml")),(st("seed"),st("17")),(st("policy parameters"),st("10 485 760")),(st("wall time"),st("14 min 32 s")),(st("data"),st("blake3 9f2c4b1d6a0e8f7750c1b2a394d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"))]),
        Block::Paragraph(st("Each number below carries a 95 % interval from 1 000 bootstrap resamples. Rows in bold are the aligned policy. Elo differences are against the base model.")),
        Block::Table(Table{caption:st("Evaluations, higher is better"),columns:vec![Column{name:st("policy"),align:Align::Left},Column{name:st("win rate"),align:Align::Right},Column{name:st("Elo"),align:Align::Right},Column{name:st("√KL"),align:Align::Right},Column{name:st("mean length"),align:Align::Right},Column{name:st("remark"),align:Align::Left}],rows:vec![row(false,&["base","50.0 %","0","0.00","84.1","before any training"]),row(false,&["context-distilled","58.2 ± 1.4 %","+57","0.81","91.7","the start of RL"]),row(true,&["aligned","72.3 ± 1.3 %","+167","3.07","110.2","after 64 000 samples"])]}),
      ]},
      Section{title:"Preference model".into(),blocks:vec![Block::Figures(vec![f(&c1,"Faint: each batch. Strong: moving average."),f(&c5,"Point area is proportional to the count."),f(&c6,"Common bins; shares, not counts."),f(&c2,"Linear decay.")])]},
      Section{title:"Reinforcement learning".into(),blocks:vec![Block::Figures(vec![f(&c4,"One point an evaluation."),f(&c3,"Eight seeds."),f(&c9,"A falling line."),f(&c8,"Constant."),f(&c7,"Nothing at all.")])]},
      Section{title:"One figure".into(),blocks:vec![Block::Figures(vec![f(&c4,"A figure alone.")])]},
      Section{title:"Before and after".into(),blocks:vec![Block::Dialogue(DialoguePair{prompt:st("Human: Who rules Tarvik?\n\nAssistant: The salt council.\n\nHuman: And before them?"),before:Answer{label:st("base"),text:st("Before them before them the the council"),scores:vec![(st("helpful"),-1.31),(st("harmless"),0.02)]},after:Answer{label:st("aligned"),text:st("Before the salt council, Tarvik was ruled by three river queens. The last of them, Oma, gave the council its charter. <script>alert(1)</script>"),scores:vec![(st("helpful"),1.84),(st("harmless"),0.55)]}}),
        Block::Details{summary:st("More dialogues (1)"),blocks:vec![Block::Paragraph(st("Hidden text."))]}]},
     ]};
    std::fs::write("/tmp/report-sample.html", page.to_html()).unwrap();
    std::fs::write("/tmp/report-c3.svg", c3.as_str()).unwrap();
    let d = "/tmp/report-tb";
    let _ = std::fs::remove_dir_all(d);
    let mut w = EventWriter::create(d).unwrap();
    for i in 1..=5u64 {
        w.scalars(i * 100, 1.7e9 + i as f64, &[("objective/kl", 0.5 * i as f64), ("lr", 1e-5)]).unwrap();
    }
    drop(w);
    let mut w = EventWriter::resume(d, 300).unwrap();
    w.scalars(400, 1.8e9, &[("objective/kl", f64::NAN), ("policy/clipfrac_avg", 0.125)]).unwrap();
}
