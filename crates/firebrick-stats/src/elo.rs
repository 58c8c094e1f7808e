//! Elo ratings by joint maximum likelihood, with errors.

use std::f64::consts::LN_10;

use crate::normal::critical_value;
use crate::{Error, Interval, preference_probability};

/// Elo points per unit of preference-model score, 400 / ln 10 = 173.7 points a logit (B-18).
pub const ELO_PER_LOGIT: f64 = 400.0 / LN_10;

/// Newton steps after which a fit is given up; ordinary tables need fewer than 20.
const MAX_STEPS: usize = 200;

/// The largest step, in logits, of a fit that has settled: 2e-7 points.
const SETTLED: f64 = 1e-9;

/// The share of comparisons that a player is expected to win, given their own rating minus the opponent's, in points.
///
/// ```text
/// P(A ≻ B) = 1 / (1 + 10^(−(E_A − E_B)/400))
/// ```
/// Bai et al. 2022, [arXiv:2204.05862](https://arxiv.org/abs/2204.05862), eq. 2.1. Spec: B-18.
///
/// Deviation: the paper prints the exponent with the other sign, that is, with opponent minus self.
pub fn expected_score(elo_difference: f64) -> f64 {
    preference_probability(elo_difference / ELO_PER_LOGIT)
}

/// How often each player beat each other player.
#[derive(Clone, Debug, PartialEq)]
pub struct WinTable {
    players: Vec<String>,
    /// Row by row: `wins[winner * players + loser]`.
    wins: Vec<f64>,
}

impl WinTable {
    /// A table of these players without any comparison.
    pub fn new(players: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let players: Vec<String> = players.into_iter().map(Into::into).collect();
        let wins = vec![0.0; players.len() * players.len()];
        Self { players, wins }
    }

    /// Adds `count` comparisons that `winner` won against `loser`, both counted from 0 in the order given to `new`.
    ///
    /// Comparisons without a choice are left out (B-18). A count need not be whole: a win rate r enters as r one way
    /// and 1 − r the other, and weighs as one comparison.
    ///
    /// # Panics
    /// If a player does not exist or meets themselves, or `count` is negative or not finite.
    pub fn record(&mut self, winner: usize, loser: usize, count: f64) {
        let players = self.players.len();
        assert!(winner < players && loser < players, "players {winner} and {loser} of {players}");
        assert!(winner != loser, "player {winner} cannot meet themselves");
        assert!(count >= 0.0 && count.is_finite(), "a count of wins must be finite and not negative, not {count}");
        self.wins[winner * players + loser] += count;
    }

    /// How often `winner` beat `loser`.
    ///
    /// # Panics
    /// If a player does not exist.
    pub fn wins(&self, winner: usize, loser: usize) -> f64 {
        assert!(loser < self.players.len(), "player {loser} of {}", self.players.len());
        self.wins[winner * self.players.len() + loser]
    }

    /// The pairs of players (a, b), a < b, who have met.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let players = self.players.len();
        (0..players)
            .flat_map(move |a| (a + 1..players).map(move |b| (a, b)))
            .filter(|&(a, b)| self.wins(a, b) + self.wins(b, a) > 0.0)
    }
}

/// The rating of one player.
#[derive(Clone, Debug, PartialEq)]
pub struct EloRating {
    /// The player's name.
    pub player: String,
    /// The rating in points, above the first player's.
    pub elo: f64,
    /// The standard error of that difference, in points; 0 for the first player.
    pub standard_error: f64,
}

/// Ratings of all players of a table, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct EloFit {
    /// The ratings; the first is 0 by definition.
    pub ratings: Vec<EloRating>,
    /// The covariance of the ratings after the first, in squared points.
    covariance: Vec<Vec<f64>>,
}

impl EloFit {
    /// The rating of `a` minus that of `b`, in points, with its normal interval.
    ///
    /// ```text
    /// E_a − E_b ± z √(C_aa + C_bb − 2 C_ab)
    /// ```
    /// Spec: B-18. Not what two separate standard errors would give: both hold the error of the first player.
    ///
    /// # Panics
    /// If a player does not exist, or `confidence` is not between 0 and 1.
    pub fn difference(&self, a: usize, b: usize, confidence: f64) -> Interval {
        let estimate = self.ratings[a].elo - self.ratings[b].elo;
        let variance = self.covariance(a, a) + self.covariance(b, b) - 2.0 * self.covariance(a, b);
        // Rounding may leave less than 0 for a = b.
        let reach = critical_value(confidence) * variance.max(0.0).sqrt();
        Interval { estimate, low: estimate - reach, high: estimate + reach }
    }

    /// The covariance of two ratings; that of the first player's, a constant, is 0.
    fn covariance(&self, a: usize, b: usize) -> f64 {
        if a == 0 || b == 0 { 0.0 } else { self.covariance[a - 1][b - 1] }
    }
}

/// Ratings that make the table most likely, fitted to all pairs at once, with standard errors.
///
/// ```text
/// maximise Σ_ab wins(a, b) ln σ(r_a − r_b),   r = E ln 10 / 400,   r_first = 0
/// ```
/// Bradley and Terry 1952; Askell et al. 2021, [arXiv:2112.00861](https://arxiv.org/abs/2112.00861), table 2; Bai et al.
/// 2022, [arXiv:2204.05862](https://arxiv.org/abs/2204.05862), appendix B.1. Spec: A-15, B-18, T-32.
///
/// Only differences matter, so the first player is fixed at 0. Errors come from the inverse of the information matrix,
/// and count every comparison as independent. `prior_wins` is added to every pair of players in both directions, met or
/// not: 0 fits the data alone, ½ is a weak prior under which every table has finite ratings.
///
/// # Errors
/// - [`Error::TooFew`] for fewer than two players.
/// - [`Error::Separable`] where some players never lost to the rest, [`Error::Disconnected`] where they never met
///   (Ford 1957: exactly then no finite maximum exists). Neither arises with `prior_wins` above 0.
/// - [`Error::NotConverged`] where counts differ by hundreds of orders of magnitude.
///
/// # Panics
/// If `prior_wins` is negative or not finite.
pub fn elo_ratings(wins: &WinTable, prior_wins: f64) -> Result<EloFit, Error> {
    assert!(prior_wins >= 0.0 && prior_wins.is_finite(), "prior wins must be finite and not negative");
    let players = wins.players.len();
    if players < 2 {
        return Err(Error::TooFew { sample: "players", needed: 2, got: players });
    }
    let wins = with_prior(wins, prior_wins);
    check_rateable(&wins)?;
    let mut strengths = vec![0.0; players];
    for _ in 0..MAX_STEPS {
        let (gradient, information) = derivatives(&wins, &strengths);
        let covariance = inverse(information);
        // The first player stays where they are.
        let newton: Vec<f64> = std::iter::once(0.0).chain(covariance.iter().map(|row| dot(row, &gradient))).collect();
        let reach = wins.pairs().map(|(a, b)| (newton[a] - newton[b]).abs()).fold(0.0, f64::max);
        if reach < SETTLED {
            return Ok(in_points(wins.players, &strengths, covariance));
        }
        // Along the step the curvature of ln σ changes by at most e^(reach · t), so the likelihood still rises at
        // t = ln(1 + reach) / reach: no step can overshoot. (Sun and Tran-Dinh 2019, arXiv:1703.04599.)
        let damping = reach.ln_1p() / reach;
        for (strength, step) in strengths.iter_mut().zip(&newton) {
            *strength += damping * step;
        }
    }
    Err(Error::NotConverged { iterations: MAX_STEPS })
}

/// The table with `prior_wins` more wins of every player against every other.
fn with_prior(wins: &WinTable, prior_wins: f64) -> WinTable {
    let mut wins = wins.clone();
    let players = wins.players.len();
    for (index, count) in wins.wins.iter_mut().enumerate() {
        if index / players != index % players {
            *count += prior_wins;
        }
    }
    wins
}

/// Refuses a table in which some players never lost to the rest: pushing them up raises the likelihood for ever.
fn check_rateable(wins: &WinTable) -> Result<(), Error> {
    let all = 0..wins.players.len();
    let beaten_by_first = reachable(wins, |winner, loser| wins.wins(winner, loser) > 0.0);
    let beat_first = reachable(wins, |loser, winner| wins.wins(winner, loser) > 0.0);
    // Whoever the first player cannot reach through wins lost to nobody who can be reached; and whoever has no way to
    // the first player beat nobody who has one.
    let unbeaten: Vec<bool> = if beaten_by_first.contains(&false) {
        beaten_by_first.into_iter().map(|reached| !reached).collect()
    } else if beat_first.contains(&false) {
        beat_first
    } else {
        return Ok(());
    };
    let named = |side: bool| {
        wins.players.iter().zip(&unbeaten).filter(|&(_, &of)| of == side).map(|(name, _)| name.clone()).collect()
    };
    let met = all.clone().any(|a| all.clone().any(|b| unbeaten[a] && !unbeaten[b] && wins.wins(a, b) > 0.0));
    Err(if met {
        Error::Separable { unbeaten: named(true), beaten: named(false) }
    } else {
        Error::Disconnected { group: named(unbeaten[0]), rest: named(!unbeaten[0]) }
    })
}

/// Which players can be reached from the first one along edges.
fn reachable(wins: &WinTable, edge: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    let mut reached = vec![false; wins.players.len()];
    let mut frontier = vec![0];
    reached[0] = true;
    while let Some(from) = frontier.pop() {
        for (to, reached) in reached.iter_mut().enumerate() {
            if !*reached && edge(from, to) {
                *reached = true;
                frontier.push(to);
            }
        }
    }
    reached
}

/// Gradient and negated Hessian of the log-likelihood with respect to all strengths but the first, in logits.
fn derivatives(wins: &WinTable, strengths: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let free = strengths.len() - 1;
    let mut gradient = vec![0.0; free];
    let mut information = vec![vec![0.0; free]; free];
    for (a, b) in wins.pairs() {
        let p_a = preference_probability(strengths[a] - strengths[b]);
        let p_b = preference_probability(strengths[b] - strengths[a]);
        let (wins_a, wins_b) = (wins.wins(a, b), wins.wins(b, a));
        let surprise = wins_a * p_b - wins_b * p_a;
        let weight = (wins_a + wins_b) * p_a * p_b;
        // b is never the first player.
        gradient[b - 1] -= surprise;
        information[b - 1][b - 1] += weight;
        if a > 0 {
            gradient[a - 1] += surprise;
            information[a - 1][a - 1] += weight;
            information[a - 1][b - 1] -= weight;
            information[b - 1][a - 1] -= weight;
        }
    }
    (gradient, information)
}

/// The inverse of a symmetric positive definite matrix, by Gauss-Jordan sweeps (no pivoting needed).
fn inverse(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let size = matrix.len();
    for pivot in 0..size {
        let scale = 1.0 / matrix[pivot][pivot];
        matrix[pivot][pivot] = 1.0;
        for entry in &mut matrix[pivot] {
            *entry *= scale;
        }
        let pivot_row = matrix[pivot].clone();
        for (row, entries) in matrix.iter_mut().enumerate() {
            if row != pivot {
                let factor = std::mem::take(&mut entries[pivot]);
                for (entry, pivot_entry) in entries.iter_mut().zip(&pivot_row) {
                    *entry -= factor * pivot_entry;
                }
            }
        }
    }
    matrix
}

/// The scalar product Σ aᵢ bᵢ.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The fit in Elo points, from strengths and their covariance in logits.
fn in_points(players: Vec<String>, strengths: &[f64], mut covariance: Vec<Vec<f64>>) -> EloFit {
    for entry in covariance.iter_mut().flatten() {
        *entry *= ELO_PER_LOGIT * ELO_PER_LOGIT;
    }
    let variances = std::iter::once(0.0).chain(covariance.iter().enumerate().map(|(i, row)| row[i]));
    let ratings = players
        .into_iter()
        .zip(strengths.iter().zip(variances))
        .map(|(player, (strength, variance))| EloRating {
            player,
            elo: strength * ELO_PER_LOGIT,
            standard_error: variance.sqrt(),
        })
        .collect();
    EloFit { ratings, covariance }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::goldens::{close, golden, numbers};

    /// A table of numbered players from (winner, loser, count).
    fn table(players: usize, wins: &[(usize, usize, f64)]) -> WinTable {
        let mut table = WinTable::new((0..players).map(|player| format!("m{player}")));
        for &(winner, loser, count) in wins {
            table.record(winner, loser, count);
        }
        table
    }

    /// Table 2 of Askell et al. 2021: win rates of row over column, one comparison's weight each.
    fn askell_table() -> WinTable {
        let mut table = WinTable::new([
            "200M",
            "800M",
            "3B",
            "13B",
            "52B",
            "13B distilled",
            "52B distilled",
            "13B short",
            "52B short",
        ]);
        for (row, column, rate) in [
            (0, 1, 0.34),
            (0, 2, 0.30),
            (0, 3, 0.13),
            (0, 4, 0.16),
            (1, 2, 0.40),
            (1, 3, 0.26),
            (1, 4, 0.25),
            (2, 3, 0.34),
            (2, 4, 0.34),
            (3, 4, 0.45),
            (5, 3, 0.46),
            (6, 4, 0.46),
            (7, 3, 0.44),
            (8, 4, 0.47),
        ] {
            table.record(row, column, rate);
            table.record(column, row, 1.0 - rate);
        }
        table
    }

    /// How far the wins of any player lie from those that the ratings expect; 0 exactly at the maximum.
    fn surprise(wins: &WinTable, fit: &EloFit) -> f64 {
        let players = 0..fit.ratings.len();
        let of = |a: usize| -> f64 {
            let pairs = players.clone().filter(|&b| b != a).map(|b| {
                let met = wins.wins(a, b) + wins.wins(b, a);
                wins.wins(a, b) - met * expected_score(fit.ratings[a].elo - fit.ratings[b].elo)
            });
            pairs.sum()
        };
        players.clone().map(|a| of(a).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a15_golden_table() {
        let fit = elo_ratings(&askell_table(), 0.0).unwrap();
        for (rating, expected) in fit.ratings.iter().zip([0.0, 108.0, 172.0, 288.0, 301.0, 260.0, 274.0, 246.0, 281.0])
        {
            assert!((rating.elo - expected).abs() < 1.0, "{rating:?}, expected {expected}");
        }
    }

    #[test]
    fn a15_known_ratings_are_recovered_within_their_errors() {
        let truth = [0.0, 103.0, 177.0, 277.0, 297.0];
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let mut wins = table(5, &[]);
        for _ in 0..6000 {
            let a = rng.random_range(0..5);
            let b = (a + rng.random_range(1..5)) % 5;
            let (winner, loser) = if rng.random_bool(expected_score(truth[a] - truth[b])) { (a, b) } else { (b, a) };
            wins.record(winner, loser, 1.0);
        }
        let fit = elo_ratings(&wins, 0.0).unwrap();
        for (rating, truth) in fit.ratings.iter().zip(truth).skip(1) {
            assert!((rating.elo - truth).abs() < 3.0 * rating.standard_error, "{rating:?}, truth {truth}");
            assert!(rating.standard_error > 5.0 && rating.standard_error < 15.0, "{rating:?}");
        }
    }

    #[test]
    fn ratings_and_errors_match_the_golden_values() {
        let case = golden("elo");
        let counts: Vec<Vec<f64>> = case["wins"].as_array().unwrap().iter().map(numbers).collect();
        let mut wins = table(counts.len(), &[]);
        for (winner, row) in counts.iter().enumerate() {
            for (loser, &count) in row.iter().enumerate().filter(|&(loser, _)| loser != winner) {
                wins.record(winner, loser, count);
            }
        }
        let fit = elo_ratings(&wins, 0.0).unwrap();
        let (elo, errors) = (numbers(&case["elo"]), numbers(&case["standard_errors"]));
        for (rating, (elo, error)) in fit.ratings.iter().zip(elo.into_iter().zip(errors)) {
            assert!((rating.elo - elo).abs() < 1e-6, "{rating:?}, expected {elo}");
            assert!((rating.standard_error - error).abs() < 1e-6, "{rating:?}, expected {error}");
        }
        let difference = fit.difference(3, 1, 0.95);
        close(difference.estimate, &case["difference_3_1"], 1e-6);
        close(difference.low, &case["difference_3_1_low"], 1e-6);
        close(difference.high, &case["difference_3_1_high"], 1e-6);
    }

    #[test]
    fn two_players_by_hand() {
        // 64 of 100: E = 400 log₁₀(64/36) = 99.95; the variance of the logit is 1/64 + 1/36 = (5/24)², so the error is
        // 173.72 · 5/24 = 36.19 points.
        let fit = elo_ratings(&table(2, &[(1, 0, 64.0), (0, 1, 36.0)]), 0.0).unwrap();
        assert_eq!((fit.ratings[0].elo, fit.ratings[0].standard_error), (0.0, 0.0));
        assert!((fit.ratings[1].elo - 400.0 * (64f64 / 36.0).log10()).abs() < 1e-6);
        assert!((fit.ratings[1].standard_error - ELO_PER_LOGIT * 5.0 / 24.0).abs() < 1e-6);
        let reversed = fit.difference(0, 1, 0.95);
        assert_eq!(reversed.estimate, -fit.ratings[1].elo);
        let reach = 1.959_963_984_540 * fit.ratings[1].standard_error;
        assert!((reversed.high - reversed.estimate - reach).abs() < 1e-6);
        assert_eq!(fit.difference(1, 1, 0.95), Interval { estimate: 0.0, low: 0.0, high: 0.0 });
    }

    #[test]
    fn expected_score_by_hand() {
        assert_eq!(expected_score(0.0), 0.5);
        // 1 / (1 + 10^(−1/4)) = 0.640065, 1 / (1 + 10^(−1)) = 10/11.
        assert!((expected_score(100.0) - 0.640_065).abs() < 1e-6);
        assert!((expected_score(400.0) - 10.0 / 11.0).abs() < 1e-15);
        assert!((ELO_PER_LOGIT - 173.717_793).abs() < 1e-6);
    }

    #[test]
    fn t32_an_unbeaten_player_is_named_and_a_prior_tames_them() {
        let wins = table(3, &[(0, 1, 5.0), (1, 0, 5.0), (2, 0, 4.0), (2, 1, 4.0)]);
        let error = elo_ratings(&wins, 0.0).unwrap_err();
        assert_eq!(error.to_string(), "m2 never lost to m0, m1; compare them more, or give `prior_wins` above 0");
        let fit = elo_ratings(&wins, 0.5).unwrap();
        assert!(fit.ratings[2].elo > 200.0 && fit.ratings[2].elo < 600.0, "{fit:?}");
        // The same with the unbeaten player first, and with one who never won.
        let first = table(3, &[(1, 2, 5.0), (2, 1, 5.0), (0, 1, 4.0)]);
        let named = |names: &[&str]| names.iter().map(|&name| String::from(name)).collect::<Vec<_>>();
        assert_eq!(
            elo_ratings(&first, 0.0),
            Err(Error::Separable { unbeaten: named(&["m0"]), beaten: named(&["m1", "m2"]) })
        );
        let winless = table(3, &[(0, 1, 5.0), (1, 0, 5.0), (1, 2, 4.0)]);
        assert_eq!(
            elo_ratings(&winless, 0.0),
            Err(Error::Separable { unbeaten: named(&["m0", "m1"]), beaten: named(&["m2"]) })
        );
    }

    #[test]
    fn t32_players_who_never_met_are_named() {
        let apart = [(0, 1, 5.0), (1, 0, 5.0), (2, 3, 5.0), (3, 2, 5.0)];
        let error = elo_ratings(&table(4, &apart), 0.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "m0, m1 never met m2, m3; compare them, rate them apart, or give `prior_wins` above 0"
        );
        // With a prior they are rated alike, with the error of next to no data.
        let fit = elo_ratings(&table(4, &apart), 0.5).unwrap();
        assert!(fit.ratings.iter().all(|rating| rating.elo.abs() < 1e-6));
        assert!(fit.ratings[2].standard_error > 150.0);
        assert!(matches!(elo_ratings(&table(2, &[]), 0.0), Err(Error::Disconnected { .. })));
    }

    #[test]
    fn t32_lopsided_tables_settle() {
        // A ladder of 12, each beating the next 999 to 1: neighbours lie 400 log₁₀ 999 = 1199.83 points apart.
        let rungs: Vec<(usize, usize, f64)> =
            (1..12).flat_map(|player| [(player, player - 1, 999.0), (player - 1, player, 1.0)]).collect();
        let fit = elo_ratings(&table(12, &rungs), 0.0).unwrap();
        let expected = 11.0 * 400.0 * 999f64.log10();
        assert!((fit.ratings[11].elo - expected).abs() < 1e-6, "{:?}", fit.ratings[11]);
        let absurd = table(2, &[(0, 1, 1e150), (1, 0, 1e-150)]);
        assert_eq!(elo_ratings(&absurd, 0.0), Err(Error::NotConverged { iterations: MAX_STEPS }));
    }

    #[test]
    fn t32_full_newton_steps_would_overshoot_here() {
        // Undamped, Newton's method runs off to infinity on this table, although every player has lost to every other
        // through some chain of wins.
        let wins = table(
            5,
            &[
                (0, 2, 2.0),
                (0, 3, 1.0),
                (1, 2, 1102.0),
                (1, 3, 5904.0),
                (1, 4, 27.0),
                (2, 1, 1.0),
                (3, 0, 4530.0),
                (3, 1, 3.0),
                (4, 1, 8.0),
            ],
        );
        let fit = elo_ratings(&wins, 0.0).unwrap();
        assert!(surprise(&wins, &fit) < 1e-6, "{fit:?}");
        assert!((fit.ratings[1].elo / ELO_PER_LOGIT - 15.02).abs() < 0.01, "{fit:?}");
    }

    #[test]
    fn four_times_the_comparisons_halve_the_errors() {
        let wins = |scale: f64| table(3, &[(0, 1, 3.0 * scale), (1, 2, 4.0 * scale), (2, 0, 5.0 * scale)]);
        let (few, many) = (elo_ratings(&wins(1.0), 0.0).unwrap(), elo_ratings(&wins(4.0), 0.0).unwrap());
        for (few, many) in few.ratings.iter().zip(&many.ratings) {
            assert!((few.elo - many.elo).abs() < 1e-6);
            assert!((few.standard_error - 2.0 * many.standard_error).abs() < 1e-6);
        }
    }

    #[test]
    fn one_player_has_no_rating() {
        assert_eq!(elo_ratings(&table(1, &[]), 0.0), Err(Error::TooFew { sample: "players", needed: 2, got: 1 }));
    }

    #[test]
    #[should_panic(expected = "player 1 cannot meet themselves")]
    fn a_player_against_themselves_panics() {
        table(2, &[(1, 1, 1.0)]);
    }

    #[test]
    #[should_panic(expected = "must be finite and not negative, not -1")]
    fn negative_counts_panic() {
        table(2, &[(0, 1, -1.0)]);
    }

    proptest! {
        #[test]
        fn t32_the_gauge_does_not_matter_and_expected_wins_are_the_observed_ones(
            counts in prop::collection::vec(0.5..50.0f64, 25),
        ) {
            let (mut wins, mut reversed) = (table(5, &[]), table(5, &[]));
            for (a, b) in (0..25).map(|i| (i / 5, i % 5)).filter(|(a, b)| a != b) {
                wins.record(a, b, counts[5 * a + b]);
                reversed.record(4 - a, 4 - b, counts[5 * a + b]);
            }
            let (fit, mirror) = (elo_ratings(&wins, 0.0).unwrap(), elo_ratings(&reversed, 0.0).unwrap());
            for (a, b) in (0..25).map(|i| (i / 5, i % 5)) {
                let (here, there) = (fit.difference(a, b, 0.9), mirror.difference(4 - a, 4 - b, 0.9));
                prop_assert!((here.estimate - there.estimate).abs() < 1e-5);
                prop_assert!((here.high - there.high).abs() < 1e-5);
            }
            prop_assert!(surprise(&wins, &fit) < 1e-6);
        }
    }
}
