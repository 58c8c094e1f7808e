//! The results as a page.

use std::fmt::Write;

use crate::cell::{CELLS, Cell};
use crate::peers::{Measured, Outcome, Results, Row};
use crate::spread::Spread;

/// The share of PyTorch's memory that training may take.
const MEMORY_GOAL: f64 = 1.0 / 3.0;

/// The largest stripped program, in MB, and the longest start, in milliseconds.
const PROGRAM_GOALS: [f64; 2] = [60.0, 50.0];

/// Others may take so much of the cores before the page warns of it.
const BUSY: f64 = 0.1;

/// A row in a line, for whoever waits.
pub fn line(row: &Row) -> String {
    match &row.outcome {
        Outcome::Failed(reason) => format!("failed: {reason}"),
        Outcome::Measured(measured) => {
            let Measured { ours, theirs, ratio, memory, taken, work_ratio, .. } = measured.as_ref();
            format!(
                "{} ms here, {} ms there: ratio {}; {} and {} MiB; others took {:.0} %, ratio of work {}",
                milliseconds(*ours),
                milliseconds(*theirs),
                range(*ratio),
                mebibytes(memory[0]),
                mebibytes(memory[1]),
                100.0 * taken,
                range(*work_ratio)
            )
        }
    }
}

/// The page.
pub fn render(results: &Results) -> String {
    let Results { machine, about, program, rows } = results;
    let mut page = String::from("# On the processor, beside PyTorch\n\n");
    page += "`cargo xtask bench peers` wrote this page; [firebrick-bench](../../crates/firebrick-bench/README.md) says how it \
             measures. [Where the time goes](profile.md), and what was tried where a goal is missed.\n\n";
    _ = writeln!(page, "- Processor: {}, {} cores, {}", machine.processor, machine.cores, machine.instructions);
    let versions = about.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>();
    _ = writeln!(page, "- Versions: {}", versions.join(", "));
    page += "- Both sides run in turn on the same weights, inputs and cores, in f32. A ratio is PyTorch's time over ours, the \
             median over rounds; in brackets the middle half of the rounds.\n\n";
    page += "## Time\n\n";
    page +=
        "PyTorch is eager, as most people run it; generation is `transformers`' `generate`, PPO is TRL's trainer.\n\n";
    page += "| cell | threads | ours, ms | PyTorch, ms | ours, tokens/s | ratio | goal | ours, % of peak |\n";
    page += "| --- | --: | --: | --: | --: | --: | --: | --: |\n";
    for (cell, row, measured) in measured(rows) {
        let Measured { ours, theirs, ratio, tokens, operations, .. } = measured;
        let cells = [
            cell.name.to_owned(),
            row.threads.to_string(),
            milliseconds(*ours),
            milliseconds(*theirs),
            format!("{:.0}", *tokens as f64 / ours.median),
            verdict(range(*ratio), ratio.median >= cell.goals[0]),
            format!("{:.1}", cell.goals[0]),
            format!("{:.0}", 100.0 * operations / ours.median / peak(rows, row.threads)),
        ];
        _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    page +=
        "\nA bold ratio misses its goal. The peak is the faster side's product of two f32 matrices of 1536 × 1536: ";
    let mut threads = measured(rows).map(|(_, row, _)| row.threads).collect::<Vec<_>>();
    threads.sort_unstable();
    threads.dedup();
    let peaks = threads.iter().map(|&threads| format!("{:.0} GFLOP/s on {threads}", peak(rows, threads) / 1e9));
    page += &peaks.collect::<Vec<_>>().join(", ");
    page += ".\n\n";
    page += &settings(rows);
    page += &memory(rows);
    if let Some(program) = program {
        let (bytes, help) = (program.bytes as f64 / 1e6, 1e3 * program.help.median);
        page += "## The program\n\n| | measured | goal |\n| --- | --: | --: |\n";
        let [size_goal, start_goal] = PROGRAM_GOALS;
        let size = verdict(format!("{bytes:.1}"), bytes <= size_goal);
        _ = writeln!(page, "| `firebrick` without symbols, MB | {size} | {size_goal:.0} |");
        let start = verdict(format!("{help:.1}"), help <= start_goal);
        _ = writeln!(page, "| start to the end of `--help`, ms | {start} | {start_goal:.0} |\n");
    }
    page += &cells_in_words(rows);
    page + &shortfalls(results)
}

/// The rows that have numbers, with their cells.
fn measured(rows: &[Row]) -> impl Iterator<Item = (&'static Cell, &Row, &Measured)> {
    rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Measured(measured) => Some((CELLS.iter().find(|cell| cell.name == row.cell)?, row, measured.as_ref())),
        Outcome::Failed(_) => None,
    })
}

/// The machine's peak on so many threads: the best of what was seen.
fn peak(rows: &[Row], threads: usize) -> f64 {
    let peaks = measured(rows).filter(|(_, row, _)| row.threads == threads).map(|(.., measured)| measured.peak);
    peaks.fold(0.0, f64::max)
}

/// PyTorch in other settings.
fn settings(rows: &[Row]) -> String {
    if measured(rows).all(|(.., measured)| measured.settings.is_empty()) {
        return String::new();
    }
    let mut text = String::from("## PyTorch at its best\n\n");
    text += "The same ratio for every setting that was tried: `compile` is `torch.compile`, `bf16` autocast (in generation, \
             weights of bf16), `loop` a decoding or PPO loop of our own in plain PyTorch. Ours rounds the factors of its products to BF16 where \
             that is faster, so many times as in f32.\n\n";
    text += "| cell | threads | ours | best setting | ratio to it | goal | all |\n| --- | --: | --- | --- | --: | --: | --- |\n";
    for (cell, row, measured) in measured(rows).filter(|(.., measured)| !measured.settings.is_empty()) {
        let eager = ("eager", measured.ratio);
        let others = measured.settings.iter();
        let ran = others.filter_map(|setting| Some((setting.name.as_str(), setting.outcome.as_ref().ok()?.0)));
        let first = measured.bf16.is_none().then_some(eager);
        let ran = first.into_iter().chain(ran).collect::<Vec<_>>();
        let best = ran.iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median)).unwrap_or(&eager);
        let told = ran.iter().map(|(name, ratio)| format!("{name} {:.2}", ratio.median));
        let failed = measured.settings.iter().filter(|setting| setting.outcome.is_err());
        let all = told.chain(failed.map(|setting| format!("{} failed", setting.name))).collect::<Vec<_>>().join(", ");
        let goal = cell.goals[1];
        let ratio = verdict(range(best.1), best.1.median >= goal);
        let ours = measured.bf16.map_or("f32".to_owned(), |gain| format!("bf16, {:.2}", gain.median));
        _ = writeln!(text, "| {} | {} | {ours} | {} | {ratio} | {goal:.1} | {all} |", cell.name, row.threads, best.0);
    }
    text + "\nA bold ratio misses its goal. A setting that took more than four times as long as the eager one in one cell was timed for \
            one step there, and is not tried in others.\n\n"
}

/// The most memory that each side held.
fn memory(rows: &[Row]) -> String {
    let mut text = String::from("## Memory\n\n");
    text += "The most that each process held (`VmHWM`), libraries and all; `ours / theirs` is to be at most a third in training. \
             We cut a batch into micro-batches where that is faster, PyTorch reads it whole.\n\n";
    text += "| cell | threads | ours, MiB | PyTorch, MiB | ours / theirs |\n| --- | --: | --: | --: | --: |\n";
    for (cell, row, measured) in measured(rows) {
        let [ours, theirs] = measured.memory;
        let share = ours as f64 / theirs as f64;
        let share = verdict(format!("{share:.2}"), !measured.trains || share <= MEMORY_GOAL);
        let [ours, theirs] = [ours, theirs].map(mebibytes);
        _ = writeln!(text, "| {} | {} | {ours} | {theirs} | {share} |", cell.name, row.threads);
    }
    text + "\n"
}

/// What each cell is and how it was measured.
fn cells_in_words(rows: &[Row]) -> String {
    let mut text = String::from("## Cells\n\n");
    for cell in &CELLS {
        _ = writeln!(text, "- `{}`: {}.", cell.name, cell.title);
    }
    text += "\n| cell | threads | our work is cut into | agreement | date | commit | load before, after | taken by others, % | ratio of work |\n";
    text += "| --- | --: | --- | --- | --- | --- | --- | --: | --: |\n";
    for (cell, row, measured) in measured(rows) {
        let cut = match measured.cut.split_once(':') {
            Some((_, rows)) => format!("micro-batches of {rows}"),
            None => "operations".to_owned(),
        };
        let Row { threads, date, commit, load: [before, after], .. } = row;
        let (agreement, taken) = (&measured.agreement, 100.0 * measured.taken);
        let work = range(measured.work_ratio);
        let measured =
            format!("{cut} | {agreement} | {date} | {commit} | {before:.1}, {after:.1} | {taken:.0} | {work}");
        _ = writeln!(text, "| {} | {threads} | {measured} |", cell.name);
    }
    text + "\n"
}

/// What is not as it should be.
fn shortfalls(results: &Results) -> String {
    let mut found = Vec::new();
    for (cell, row, measured) in measured(&results.rows) {
        let on = format!("`{}` on {}", cell.name, row.threads);
        let [eager, best] = cell.goals;
        if measured.ratio.median < eager {
            found.push(format!("{on}: {:.2} times as fast as PyTorch, not {eager:.1}.", measured.ratio.median));
        }
        let [ours, theirs] = measured.memory.map(|bytes| bytes as f64);
        if measured.trains && ours / theirs > MEMORY_GOAL {
            found.push(format!("{on}: {:.0} % of PyTorch's memory, not a third.", 100.0 * ours / theirs));
        }
        if measured.taken > BUSY {
            let taken = 100.0 * measured.taken;
            found.push(format!("{on}: others took up to {taken:.0} % of the cores meanwhile; measure it again alone."));
        }
        for setting in &measured.settings {
            match &setting.outcome {
                Ok((ratio, _)) if ratio.median < best => {
                    let name = &setting.name;
                    found
                        .push(format!("{on}: {:.2} times as fast as PyTorch's `{name}`, not {best:.1}.", ratio.median));
                }
                Err(reason) => found.push(format!("{on}: PyTorch's `{}` did not run: {reason}.", setting.name)),
                Ok(_) => {}
            }
        }
    }
    for row in &results.rows {
        if let Outcome::Failed(reason) = &row.outcome {
            found.push(format!("`{}` on {} was not measured: {reason}.", row.cell, row.threads));
        }
    }
    for cell in &CELLS {
        if results.rows.iter().all(|row| row.cell != cell.name) {
            found.push(format!("`{}` has not been measured.", cell.name));
        }
    }
    if let Some(program) = &results.program {
        let measured = [program.bytes as f64 / 1e6, 1e3 * program.help.median];
        for (index, what) in ["MB without symbols", "ms to the end of `--help`"].into_iter().enumerate() {
            if measured[index] > PROGRAM_GOALS[index] {
                found.push(format!("`firebrick`: {:.0} {what}, not {:.0}.", measured[index], PROGRAM_GOALS[index]));
            }
        }
    }
    let mut text = String::from("## Shortfalls\n\n");
    if found.is_empty() {
        return text + "None: every goal is reached.\n";
    }
    found.iter().for_each(|line| _ = writeln!(text, "- {line}"));
    text
}

/// The text, bold where it does not do.
fn verdict(text: String, good: bool) -> String {
    if good { text } else { format!("**{text}**") }
}

fn range(spread: Spread) -> String {
    format!("{:.2} [{:.2}, {:.2}]", spread.median, spread.low, spread.high)
}

fn milliseconds(seconds: Spread) -> String {
    format!("{:.1}", 1e3 * seconds.median)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Setting;

    fn same(value: f64) -> Spread {
        Spread { low: value, median: value, high: value }
    }

    fn row(cell: &str, outcome: Outcome) -> Row {
        let (date, commit) = ("2026-01-02".to_owned(), "abc".to_owned());
        Row { cell: cell.to_owned(), threads: 2, date, commit, load: [0.5, 2.0], outcome }
    }

    /// 10 ms here, 25 ms there, 1000 tokens; 1 GFLOP a step of a peak of 500 GFLOP/s.
    fn numbers() -> Measured {
        Measured {
            cut: "rows:4".to_owned(),
            ours: same(0.010),
            theirs: same(0.025),
            ratio: same(2.5),
            work_ratio: same(2.4),
            taken: 0.02,
            tokens: 1000,
            operations: 1e9,
            peak: 500e9,
            memory: [100 << 20, 400 << 20],
            trains: true,
            agreement: "losses to 1e-6".to_owned(),
            bf16: None,
            settings: vec![
                Setting { name: "bf16".to_owned(), outcome: Ok((same(0.8), same(0.008))) },
                Setting { name: "compile".to_owned(), outcome: Err("no compiler".to_owned()) },
            ],
        }
    }

    fn page(rows: Vec<Row>) -> String {
        render(&Results { rows, ..Results::default() })
    }

    #[test]
    fn a_row_tells_times_rate_ratio_and_share_of_the_peak() {
        let page = page(vec![row("lm-small", Outcome::Measured(Box::new(numbers())))]);
        // 1000 tokens / 10 ms; 1 GFLOP / 10 ms = 100 GFLOP/s of 500.
        let expected = "| lm-small | 2 | 10.0 | 25.0 | 100000 | 2.50 [2.50, 2.50] | 2.0 | 20 |";
        assert!(page.contains(expected), "{page}");
        assert!(page.contains("| lm-small | 2 | 100 | 400 | 0.25 |"), "{page}");
        assert!(
            page.contains("| f32 | bf16 | **0.80 [0.80, 0.80]** | 1.5 | eager 2.50, bf16 0.80, compile failed |"),
            "{page}"
        );
    }

    #[test]
    fn shortfalls_are_told_plainly() {
        let slow = Measured { ratio: same(1.5), taken: 0.3, memory: [300 << 20, 400 << 20], ..numbers() };
        let rows =
            vec![row("lm-small", Outcome::Measured(Box::new(slow))), row("ppo", Outcome::Failed("no trl".to_owned()))];
        let page = page(rows);
        let shortfalls = page.split_once("## Shortfalls").unwrap().1;
        for expected in [
            "- `lm-small` on 2: 1.50 times as fast as PyTorch, not 2.0.",
            "- `lm-small` on 2: 75 % of PyTorch's memory, not a third.",
            "- `lm-small` on 2: others took up to 30 % of the cores",
            "- `lm-small` on 2: 0.80 times as fast as PyTorch's `bf16`, not 1.5.",
            "- `lm-small` on 2: PyTorch's `compile` did not run: no compiler.",
            "- `ppo` on 2 was not measured: no trl.",
            "- `pm` has not been measured.",
        ] {
            assert!(shortfalls.contains(expected), "{expected}: {shortfalls}");
        }
        assert!(page.contains("**1.50 [1.50, 1.50]**") && page.contains("**0.75**"), "{page}");
    }
}
