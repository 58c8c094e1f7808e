//! Elo ratings with errors from a table of wins.
#![allow(clippy::print_stdout)]

use firebrick_stats::{WinTable, elo_ratings, expected_score};

fn main() -> Result<(), firebrick_stats::Error> {
    let mut wins = WinTable::new(["pretrained", "distilled", "rlhf"]);
    for (winner, loser, count) in [(1, 0, 61.0), (0, 1, 39.0), (2, 1, 70.0), (1, 2, 30.0), (2, 0, 78.0), (0, 2, 22.0)] {
        wins.record(winner, loser, count);
    }
    let fit = elo_ratings(&wins, 0.0)?;
    for rating in &fit.ratings {
        println!("{:12} {:6.1} ± {:.1}", rating.player, rating.elo, rating.standard_error);
    }
    let gap = fit.difference(2, 1, 0.95);
    println!("rlhf over distilled: {:.0} [{:.0}, {:.0}] points", gap.estimate, gap.low, gap.high);
    println!("which is a win rate of {:.2}", expected_score(gap.estimate));
    assert!(gap.low > 0.0 && (expected_score(gap.estimate) - 0.7).abs() < 0.02, "70 of 100 were won");
    Ok(())
}
